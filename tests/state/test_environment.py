"""An environment's status, peaks and actions (Sanctum schema, TELE-645)."""

from __future__ import annotations

from typing import Any

import pytest

from esper_exporter.contract.vocabulary import OPS
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import SeedState
from support.pages import value
from support.states import emitted, event, lit_sources, started, state_after


@pytest.mark.parametrize(
    ("reported", "op"),
    [
        ("GERMINATE_CONV_LIGHT", "GERMINATE"),
        ("FOSSILIZE_R0C0", "FOSSILIZE"),
        ("PRUNE_R1C1", "PRUNE"),
        ("ADVANCE_R1C1", "ADVANCE"),
        ("SET_ALPHA_TARGET_R0C0", "SET_ALPHA_TARGET"),
        ("WAIT", "WAIT"),
    ],
)
def test_a_factored_action_counts_as_its_operation(reported: str, op: str) -> None:
    env = EnvState(env_id=0)
    env.add_action(reported)
    assert list(env.action_history) == [op]
    assert env.action_counts == {**dict.fromkeys(OPS, 0), op: 1}
    assert env.total_actions == 1


def test_the_action_history_keeps_the_last_fifty() -> None:
    env = EnvState(env_id=0)
    for number in range(60):
        env.add_action("WAIT" if number < 59 else "PRUNE")
    assert len(env.action_history) == 50
    assert env.action_history[-1] == "PRUNE"
    assert env.total_actions == 60


def test_stalling_must_hold_for_three_epochs_before_it_is_the_status() -> None:
    env = EnvState(env_id=0)
    env.add_accuracy(50.0, 1)
    assert env.status == "healthy"
    for epoch in range(2, 14):
        env.add_accuracy(50.0, epoch)
    assert env.status == "healthy"
    env.add_accuracy(50.0, 14)
    assert env.status == "stalled"
    env.add_accuracy(81.0, 15)
    assert env.status == "excellent"


def test_losing_accuracy_three_times_degrades_and_only_a_gain_resets() -> None:
    env = EnvState(env_id=0)
    env.add_accuracy(60.0, 1)
    for epoch, accuracy in enumerate((58.0, 58.0, 56.0), start=2):
        env.add_accuracy(accuracy, epoch)
    assert (env.status, env.degraded_counter) == ("healthy", 2)
    env.add_accuracy(54.0, 5)
    assert env.status == "degraded"
    env.add_accuracy(54.5, 6)
    assert env.degraded_counter == 0


def test_the_peak_remembers_seeds_that_contribute_as_they_were() -> None:
    env = EnvState(env_id=0)
    env.seeds = {
        "r0c0": SeedState("r0c0", stage="BLENDING", alpha=0.5),
        "r0c1": SeedState("r0c1", stage="TRAINING"),
    }
    env.cumulative_reward = 2.5
    env.add_accuracy(70.0, 3, episode=9)
    env.seeds["r0c0"].alpha = 1.0
    env.add_accuracy(69.5, 4)
    assert {slot: seed.alpha for slot, seed in env.best_seeds.items()} == {"r0c0": 0.5}
    best = (env.best_accuracy, env.best_accuracy_epoch, env.best_accuracy_episode)
    assert best == (70.0, 3, 9)
    assert env.peak_cumulative_reward == 2.5


def test_rewards_keep_their_sum_and_their_best() -> None:
    env = EnvState(env_id=0)
    for epoch, reward in enumerate((1.0, 3.0, -2.0)):
        env.add_reward(reward, epoch)
    assert (env.cumulative_reward, env.best_reward, env.best_reward_epoch) == (2.0, 3.0, 1)
    assert (env.current_reward, env.mean_reward) == (-2.0, 2.0 / 3.0)


def test_ratios_of_nothing_have_their_documented_values() -> None:
    env = EnvState(env_id=0)
    assert (env.growth_ratio, env.gaming_rate, env.mean_reward) == (1.0, 0.0, 0.0)
    env.host_params, env.fossilized_params = 100, 20
    assert env.growth_ratio == 1.2


def test_a_loss_of_less_than_a_percent_point_degrades_nothing() -> None:
    env = EnvState(env_id=0)
    for epoch, accuracy in enumerate((60.0, 59.5, 58.6, 58.0, 57.5), start=1):
        env.add_accuracy(accuracy, epoch)
    assert (env.status, env.degraded_counter) == ("healthy", 0)


def decision(**components: float) -> dict[str, Any]:
    return event(
        "ANALYTICS_SNAPSHOT",
        {
            "kind": "last_action",
            "env_id": 0,
            "action_name": "WAIT",
            "action_confidence": 0.5,
            "reward_components": components,
        },
    )


@pytest.mark.parametrize(
    ("components", "steps"),
    [
        ({"ratio_penalty": -1.0, "alpha_shock": 0.0}, 1.0),
        ({"ratio_penalty": 0.0, "alpha_shock": -1.0}, 1.0),
        ({"ratio_penalty": 0.0, "alpha_shock": 0.0}, 0.0),
        ({"alpha_shock": 0.0}, 0.0),
        ({"stage_bonus": 1.0}, None),
    ],
)
def test_either_penalty_makes_a_step_one_of_gaming(
    components: dict[str, float], steps: float | None
) -> None:
    page = emitted(started(), decision(**components)).render().decode()
    assert value(page, "esper_simic_gaming_steps_total") == steps


@pytest.mark.parametrize(
    ("counts", "lit"),
    [({"nan_count": 1}, True), ({"inf_count": 1}, True), ({"nan_count": 0, "inf_count": 0}, False)],
)
def test_inputs_that_are_not_finite_light_their_source(counts: dict[str, int], lit: bool) -> None:
    data = {"kind": "last_action", "observation_stats": counts}
    run = state_after(started(), event("ANALYTICS_SNAPSHOT", data))
    assert lit_sources(run) == ({"observations"} if lit else set())
