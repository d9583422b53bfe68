"""The snapshot's shape: it has every field the real system's snapshots have, and their defaults."""

from __future__ import annotations

import gzip
import json
import math
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from esper_exporter.contract.vocabulary import HEADS, OPS, SPELLINGS
from esper_exporter.state.attribution import (
    CounterfactualConfig,
    CounterfactualSnapshot,
    ShapleyEstimate,
    ShapleySnapshot,
)
from esper_exporter.state.decision import DecisionSnapshot
from esper_exporter.state.environment import EnvState
from esper_exporter.state.head_state import HEAD_VIEW
from esper_exporter.state.lifecycle import (
    SeedLifecycleEvent,
    SeedState,
)
from esper_exporter.state.policy import (
    GradientQualityMetrics,
    InfrastructureMetrics,
    TamiyoState,
    ValueFunctionMetrics,
)
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.snapshot import (
    BestRunRecord,
    EventLogEntry,
    RunConfig,
    SanctumSnapshot,
)
from esper_exporter.state.statistics import EpisodeStats, ObservationStats, SeedLifecycleStats
from esper_exporter.state.vitals import GPUStats, SystemVitals
from support.recordings import RECORDED_HEADS

RECORDINGS = Path(__file__).parents[1] / "recordings"

Found = tuple[type, dict[str, Any]]


@cache
def snapshots(name: str) -> tuple[dict[str, Any], ...]:
    lines = gzip.decompress((RECORDINGS / f"{name}.snapshots.jsonl.gz").read_bytes()).splitlines()
    return tuple(json.loads(line)["snapshot"] for line in lines)


def _attribution(owner: dict[str, Any], matrix: str, shapley: str) -> Iterator[Found]:
    if owner[matrix] is not None:
        yield CounterfactualSnapshot, owner[matrix]
        yield from ((CounterfactualConfig, reported) for reported in owner[matrix]["configs"])
    if owner[shapley] is not None:
        yield ShapleySnapshot, owner[shapley]
        yield from ((ShapleyEstimate, reported) for reported in owner[shapley]["values"].values())


def _env(env: dict[str, Any]) -> Iterator[Found]:
    yield EnvState, env
    yield RewardComponents, env["reward_components"]
    if env["best_reward_components"] is not None:
        yield RewardComponents, env["best_reward_components"]
    for seeds in (env["seeds"], env["best_seeds"]):
        yield from ((SeedState, seed) for seed in seeds.values())
    for events in (env["lifecycle_events"], env["best_lifecycle_events"]):
        yield from ((SeedLifecycleEvent, event) for event in events)
    yield from _attribution(env, "counterfactual_matrix", "shapley_snapshot")
    yield from _attribution(env, "best_counterfactual_matrix", "best_shapley_snapshot")


def _best_run(record: dict[str, Any]) -> Iterator[Found]:
    yield BestRunRecord, record
    yield RewardComponents, record["end_reward_components"]
    for seeds in (record["seeds"], record["end_seeds"]):
        yield from ((SeedState, seed) for seed in seeds.values())
    for events in (record["best_lifecycle_events"], record["end_lifecycle_events"]):
        yield from ((SeedLifecycleEvent, event) for event in events)
    yield from _attribution(record, "counterfactual_matrix", "shapley_snapshot")


def objects(snapshot: dict[str, Any]) -> Iterator[Found]:
    """Every nested object of a recorded snapshot, with its class."""
    tamiyo = snapshot["tamiyo"]
    yield SanctumSnapshot, snapshot
    yield TamiyoState, tamiyo
    yield InfrastructureMetrics, tamiyo["infrastructure"]
    yield GradientQualityMetrics, tamiyo["gradient_quality"]
    yield ValueFunctionMetrics, tamiyo["value_function"]
    yield from ((DecisionSnapshot, reported) for reported in tamiyo["recent_decisions"])
    yield SystemVitals, snapshot["vitals"]
    yield from ((GPUStats, reported) for reported in snapshot["vitals"]["gpu_stats"].values())
    yield RewardComponents, snapshot["rewards"]
    yield RunConfig, snapshot["run_config"]
    yield SeedLifecycleStats, snapshot["seed_lifecycle"]
    yield ObservationStats, snapshot["observation_stats"]
    yield EpisodeStats, snapshot["episode_stats"]
    yield from ((EventLogEntry, reported) for reported in snapshot["event_log"])
    for env in snapshot["envs"].values():
        yield from _env(env)
    for record in snapshot["best_runs"]:
        yield from _best_run(record)


SPELLED = [SPELLINGS[head] for head in RECORDED_HEADS]

MAPPINGS: dict[type, tuple[set[str], set[str]]] = {
    TamiyoState: (
        {"heads"},
        {name for name, (head, _) in HEAD_VIEW.items() if head in (*RECORDED_HEADS, "q")},
    ),
    DecisionSnapshot: (
        {"choices", "confidences"},
        {f"{head}_confidence" for head in SPELLED}
        | {f"chosen_{head}" for head in SPELLED} - {"chosen_op"},
    ),
}
"""Ours by head, for which the real system has a field a head."""

NOT_KEPT: dict[type, set[str]] = {
    BestRunRecord: {
        *("record_id", "end_seeds", "end_reward_components"),
        *("best_lifecycle_events", "end_lifecycle_events"),
    },
    DecisionSnapshot: {f"{head}_entropy" for head in SPELLED},
    EnvState: {"best_lifecycle_events"},
    EpisodeStats: {
        *("timeout_count", "success_count"),
        *("early_termination_count", "early_termination_rate"),
    },
    EventLogEntry: {"relative_time", "metadata"},
    SanctumSnapshot: {
        *("captured_at", "connected", "last_action_env_id", "last_action_timestamp"),
        *("last_ppo_update", "last_reward_update", "mean_accuracy_history"),
        *("morphology_causal_log", "poll_count", "training_thread_alive"),
    },
    SeedLifecycleStats: {"germination_count", "active_count"},
    SeedState: {"prune_reason"},
    SystemVitals: {"gpu_temperature", "gpu_data_present", "cpu_percent"},
    TamiyoState: {
        *("decision_density_history", "episode_return_history", "explained_variance_history"),
        *("grad_norm_history", "kl_divergence_history", "last_action_op"),
        *("policy_loss_history", "value_loss_history"),
    },
    ValueFunctionMetrics: {"value_predictions", "actual_returns", "td_errors"},
}
"""What nothing here reads."""


def names(cls: type) -> set[str]:
    """The fields of the real system's class, as far as ours has them."""
    ours, theirs = MAPPINGS.get(cls, (set(), set()))
    return ({f.name for f in fields(cls)} - ours) | theirs | NOT_KEPT.get(cls, set())


# The recordings leave the causal log out.
NOT_RECORDED: dict[type, set[str]] = {SanctumSnapshot: {"morphology_causal_log"}}

# Number of fields of each class in the real system.
FIELD_COUNTS = {
    BestRunRecord: 29,
    CounterfactualConfig: 2,
    CounterfactualSnapshot: 4,
    DecisionSnapshot: 40,
    EnvState: 50,
    EpisodeStats: 19,
    EventLogEntry: 7,
    GPUStats: 5,
    GradientQualityMetrics: 3,
    InfrastructureMetrics: 8,
    ObservationStats: 15,
    RewardComponents: 23,
    RunConfig: 8,
    SanctumSnapshot: 48,
    SeedLifecycleEvent: 13,
    SeedLifecycleStats: 13,
    SeedState: 22,
    ShapleyEstimate: 3,
    ShapleySnapshot: 4,
    SystemVitals: 13,
    TamiyoState: 131,
    ValueFunctionMetrics: 12,
}

# Where the real system invents a value for what no update has measured, ours says None.
NONE_UNTIL_MEASURED = {
    "value_nrmse": 1.0,
    "q_aux_loss": 0.0,
    **dict.fromkeys(MAPPINGS[TamiyoState][1], 0.0),
    **{name: 1.0 for name in MAPPINGS[TamiyoState][1] if name.endswith("_ratio_max")},
    "head_q_gradient_state": "missing",
}


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_every_recorded_object_has_exactly_the_fields_of_its_class(name: str) -> None:
    wrong = {
        (cls.__name__, tuple(sorted(set(reported) ^ (names(cls) - NOT_RECORDED.get(cls, set())))))
        for snapshot in snapshots(name)
        for cls, reported in objects(snapshot)
        if set(reported) != names(cls) - NOT_RECORDED.get(cls, set())
    }
    assert not wrong


def test_the_recordings_show_every_class_but_the_one_they_cannot() -> None:
    shown = {cls for name in ("run1", "run2b") for s in snapshots(name) for cls, _ in objects(s)}
    assert set(FIELD_COUNTS) - shown == {GPUStats}


@pytest.mark.parametrize(("cls", "count"), FIELD_COUNTS.items(), ids=lambda v: str(v))
def test_a_class_has_as_many_fields_as_in_the_real_system(cls: type, count: int) -> None:
    assert len(names(cls)) == count


def plain(value: Any) -> Any:
    """A default in the form in which the recordings write it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return list(value) if isinstance(value, deque | tuple) else value


def kept(cls: type, recorded: dict[str, Any], nested: Collection[str] = ()) -> dict[str, Any]:
    """What ours has of a recorded object."""
    left_out = {*nested, *NOT_KEPT.get(cls, ())}
    return {name: value for name, value in recorded.items() if name not in left_out}


def scalars(state: object, leave_out: set[str]) -> dict[str, Any]:
    leave_out = leave_out | NOT_KEPT.get(type(state), set())
    found = {name: getattr(state, name) for name in names(type(state)) if name not in leave_out}
    return {
        name: [plain(v) for v in value] if isinstance(value, tuple) else plain(value)
        for name, value in found.items()
    }


def test_a_policy_before_its_first_update_reads_as_in_the_real_system() -> None:
    nested = {"infrastructure", "gradient_quality", "value_function"}
    nested |= {"head_nan_latch", "head_inf_latch"}  # of the vocabulary's heads
    recorded = kept(TamiyoState, snapshots("run1")[0]["tamiyo"], nested)
    ours = scalars(TamiyoState(), nested)
    differing = {name for name in recorded if recorded[name] != ours[name]}
    assert differing == set(NONE_UNTIL_MEASURED)
    assert {name: recorded[name] for name in differing} == NONE_UNTIL_MEASURED
    assert all(ours[name] is None for name in differing)


@pytest.mark.parametrize(
    ("cls", "part"),
    [
        (InfrastructureMetrics, "infrastructure"),
        (GradientQualityMetrics, "gradient_quality"),
        (ValueFunctionMetrics, "value_function"),
    ],
)
def test_a_metric_group_before_the_first_update_reads_as_in_the_real_system(
    cls: type, part: str
) -> None:
    assert scalars(cls(), set()) == kept(cls, snapshots("run1")[0]["tamiyo"][part])


def test_an_environment_that_has_not_trained_reads_as_in_the_real_system() -> None:
    nested = {"reward_components", "counterfactual_matrix", "shapley_snapshot"}
    recorded = {k: v for k, v in snapshots("run1")[0]["envs"]["0"].items() if k not in nested}
    ours = scalars(EnvState(0, host_params=77, reward_mode="shaped"), nested)
    assert ours == kept(EnvState, recorded)


def test_empty_reward_components_read_as_in_the_real_system() -> None:
    assert scalars(RewardComponents(), set()) == snapshots("run1")[0]["rewards"]


@pytest.mark.parametrize("board", ["head_nan_latch", "head_inf_latch"])
def test_every_head_has_a_latch_that_is_clear_at_first(board: str) -> None:
    assert getattr(TamiyoState(), board) == dict.fromkeys(HEADS, False)


def test_two_states_share_no_container() -> None:
    one, other = TamiyoState(), TamiyoState()
    one.head_nan_latch["op"] = True
    one.entropy_history.append(1.0)
    assert not other.head_nan_latch["op"]
    assert not other.entropy_history


@pytest.mark.parametrize(
    ("state", "history", "length"),
    [
        (EnvState(0), "reward_history", 50),
        (EnvState(0), "accuracy_history", 50),
        (EnvState(0), "action_history", 50),
        (TamiyoState(), "entropy_history", 10),
        (TamiyoState(), "clip_fraction_history", 10),
    ],
)
def test_a_history_keeps_as_many_values_as_the_schema_says(
    state: object, history: str, length: int
) -> None:
    assert getattr(state, history).maxlen == length


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("q_wait", "WAIT"),
        ("q_germinate", "GERMINATE"),
        ("q_set_alpha", "SET_ALPHA_TARGET"),
        ("q_prune", "PRUNE"),
        ("q_fossilize", "FOSSILIZE"),
        ("q_advance", "ADVANCE"),
    ],
)
def test_a_q_value_of_the_seed_schema_is_that_of_its_operation(name: str, op: str) -> None:
    state = TamiyoState(op_q_values=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0))
    assert getattr(state, name) == OPS.index(op)
    assert math.isnan(getattr(TamiyoState(), name))
    with pytest.raises(AttributeError):
        setattr(state, name, 1.0)


def test_a_seed_has_no_room_for_fields_the_schema_does_not_know() -> None:
    with pytest.raises(AttributeError):
        SeedState("r0c0").colour = "red"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "stale"), [(0.0, False), (5.0, False), (5.001, True), (math.inf, True)]
)
def test_a_snapshot_is_stale_after_more_than_five_seconds(seconds: float, stale: bool) -> None:
    assert SanctumSnapshot(staleness_seconds=seconds).is_stale is stale


def test_a_new_snapshot_is_stale_because_nothing_has_come_yet() -> None:
    assert SanctumSnapshot().is_stale


@pytest.mark.parametrize(
    ("allocated", "reserved", "percent"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 4.0, 25.0), (4.0, 4.0, 100.0)],
)
def test_memory_use_is_what_is_allocated_of_what_is_reserved(
    allocated: float, reserved: float, percent: float
) -> None:
    metrics = InfrastructureMetrics(
        cuda_memory_allocated_gb=allocated, cuda_memory_reserved_gb=reserved
    )
    assert metrics.memory_usage_percent == percent


@pytest.mark.parametrize(
    ("vitals", "devices"),
    [
        (SystemVitals(), []),
        (SystemVitals(ram_used_gb=90.0, ram_total_gb=100.0), []),
        (SystemVitals(ram_used_gb=90.1, ram_total_gb=100.0), ["RAM"]),
        (SystemVitals(ram_used_gb=1.0, ram_total_gb=0.0), []),
        (SystemVitals(ram_used_gb=None, ram_total_gb=10.0), []),
        (SystemVitals(gpu_memory_used_gb=79.0, gpu_memory_total_gb=80.0), ["cuda:0"]),
        (
            SystemVitals(gpu_stats={0: GPUStats(0, 1.0, 80.0), 3: GPUStats(3, 79.0, 80.0)}),
            ["cuda:3"],
        ),
        (
            SystemVitals(
                gpu_stats={0: GPUStats(0, 1.0, 80.0)},
                gpu_memory_used_gb=79.0,
                gpu_memory_total_gb=80.0,
            ),
            [],
        ),
        (
            SystemVitals(
                gpu_stats={1: GPUStats(1, 80.0, 80.0)}, ram_used_gb=10.0, ram_total_gb=10.0
            ),
            ["RAM", "cuda:1"],
        ),
    ],
)
def test_a_device_more_than_nine_tenths_full_is_an_alarm(
    vitals: SystemVitals, devices: list[str]
) -> None:
    assert vitals.memory_alarm_devices == devices
    assert vitals.has_memory_alarm is bool(devices)
