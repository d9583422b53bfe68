"""What stays of an episode when the next one begins, and of the last event of a kind."""

from __future__ import annotations

from typing import Any

from esper_exporter.state import counted
from esper_exporter.state.run import RunState
from support.states import event, started, state_after

EPOCH = {"val_accuracy": 50.0, "val_loss": 1.0, "inner_epoch": 1}
BATCH = {
    "episodes_completed": 2,
    "batch_idx": 1,
    "avg_accuracy": 50.0,
    "avg_reward": 1.0,
    "total_episodes": 10,
    "n_envs": 2,
}
GERMINATED = {"slot_id": "r0c0", "env_id": 0, "blueprint_id": "norm", "params": 10}
ACTION = {"env_id": 0, "action_name": "WAIT", "action_confidence": 0.5, "total_reward": 2.5}


def after_a_batch() -> RunState:
    """A run of two environments, of which the first alone was measured, after its first batch."""
    return state_after(
        started(),
        event("SEED_GERMINATED", GERMINATED, 1.0, slot_id="r0c0"),
        event("EPOCH_COMPLETED", EPOCH | {"env_id": 0}, 2.0),
        event("ANALYTICS_SNAPSHOT", ACTION | {"kind": "last_action"}, 3.0),
        event("BATCH_EPOCH_COMPLETED", BATCH, 4.0),
    )


def test_an_ended_episode_keeps_what_the_next_one_begins_without() -> None:
    run = after_a_batch()
    ended, env = run.last_episode[0], run.snapshot.envs[0]
    assert list(ended.accuracy_history) == [50.0] and list(env.accuracy_history) == []
    assert list(ended.reward_history) == [2.5] and list(env.reward_history) == []
    assert list(ended.action_history) == ["WAIT"] and list(env.action_history) == []
    assert list(ended.seeds) == ["r0c0"] and list(env.seeds) == []


def test_an_environment_that_was_not_measured_has_no_ended_episode() -> None:
    assert list(after_a_batch().last_episode) == [0]


def test_the_last_payload_is_kept_for_metrics_under_the_name_of_its_row() -> None:
    warning = {"gpu_allocated_gb": 1.0, "gpu_total_gb": 2.0, "threshold": 0.9}
    shares = (0.91, 0.95)
    run = state_after(
        started(), *(event("MEMORY_WARNING", warning | {"gpu_utilization": x}) for x in shares)
    )
    assert run.latest["memory_warning"].gpu_utilization == 0.95  # type: ignore[attr-defined]


def timing(milliseconds: float) -> dict[str, Any]:
    return {"wall_ms": milliseconds, "python_cpu_ms": milliseconds, "python_cpu_ratio": 1.0}


def test_a_phase_of_another_name_is_counted_beside_the_known_ones() -> None:
    phases = {"train": timing(100.0), "my_phase": timing(50.0)}
    run = state_after(started(), event("PHASE_PROFILE_COMPLETED", {"phases": phases}))
    seconds = {name: run.tallies.get(counted.PHASE_CPU_SECONDS, name) for name in phases}
    assert seconds == {"train": 0.1, "my_phase": 0.05}
    durations = run.distributions.values
    assert all(sum(durations[counted.PHASE_DURATION, (name,)].counts) == 1 for name in phases)


def test_times_that_are_no_times_reach_no_counter() -> None:
    profiles = [{"train": timing(value)} for value in (100.0, float("nan"), float("inf"), -5.0)]
    events = [event("PHASE_PROFILE_COMPLETED", {"phases": each}) for each in profiles]
    run = state_after(started(), *events)
    assert run.tallies.get(counted.PHASE_CPU_SECONDS, "train") == 0.1
    assert run.distributions.values[counted.PHASE_DURATION, ("train",)].total == 0.1
