"""An environment's own rules: rewards, actions, the best accuracy and the status."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.contract.vocabulary import ENV_STATUSES, OPS
from esper_exporter.state.attribution import CounterfactualConfig, CounterfactualSnapshot
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import SeedLifecycleEvent, SeedState

RECORDINGS = Path(__file__).parents[1] / "recordings"


def lines(name: str, kind: str) -> Iterator[dict[str, Any]]:
    packed = (RECORDINGS / f"{name}.{kind}.jsonl.gz").read_bytes()
    return (json.loads(line) for line in gzip.decompress(packed).splitlines())


def trained(*accuracies: float) -> EnvState:
    env = EnvState(0)
    for epoch, accuracy in enumerate(accuracies, start=1):
        env.add_accuracy(accuracy, epoch)
    return env


def test_properties_of_an_environment_without_data_are_neutral() -> None:
    env = EnvState(0)
    assert (env.current_reward, env.mean_reward, env.gaming_rate, env.growth_ratio) == (0, 0, 0, 1)


def test_rewards_are_summed_and_the_strictly_best_is_remembered() -> None:
    env = EnvState(0)
    for epoch, reward in enumerate([1.0, 3.0, 3.0, -2.0], start=1):
        env.add_reward(reward, epoch)
    assert (env.current_reward, env.mean_reward, env.cumulative_reward) == (-2.0, 1.25, 5.0)
    assert (env.best_reward, env.best_reward_epoch) == (3.0, 2)


def test_a_first_reward_is_the_best_however_bad() -> None:
    env = EnvState(0)
    env.add_reward(-9.0, 4)
    assert (env.best_reward, env.best_reward_epoch) == (-9.0, 4)


def test_the_gaming_rate_is_the_share_of_steps_that_were_penalised() -> None:
    assert EnvState(0, gaming_trigger_count=3, total_reward_steps=12).gaming_rate == 0.25


def test_growth_is_the_size_with_fossilised_seeds_over_the_hosts_own() -> None:
    assert EnvState(0, host_params=100, fossilized_params=50).growth_ratio == 1.5


@pytest.mark.parametrize(
    ("name", "kept", "counted"),
    [
        ("WAIT", "WAIT", True),
        ("GERMINATE_CONV_LIGHT", "GERMINATE", True),
        ("FOSSILIZE_R0C0", "FOSSILIZE", True),
        ("SET_ALPHA_TARGET_R0C0", "SET_ALPHA_TARGET", True),
        ("PRUNE_R1C1", "PRUNE", True),
        ("ADVANCE", "ADVANCE", True),
        ("UNKNOWN", "UNKNOWN", False),
    ],
)
def test_an_action_is_kept_by_its_operation_and_counted_if_it_is_one(
    name: str, kept: str, counted: bool
) -> None:
    env = EnvState(0)
    env.add_action(name)
    assert list(env.action_history) == [kept]
    assert env.total_actions == sum(env.action_counts.values()) == int(counted)
    assert set(env.action_counts) == set(OPS)


def test_the_action_history_rolls_over_fifty_and_the_counts_do_not() -> None:
    env = EnvState(0)
    for _ in range(60):
        env.add_action("WAIT")
    assert (len(env.action_history), env.action_counts["WAIT"]) == (50, 60)


def test_only_a_strictly_higher_accuracy_is_a_new_best() -> None:
    env = EnvState(0)
    env.add_accuracy(10.0, 1, episode=7)
    env.add_accuracy(10.0, 2, episode=8)
    assert (env.best_accuracy, env.best_accuracy_epoch, env.best_accuracy_episode) == (10.0, 1, 7)
    assert (env.epochs_since_improvement, env.host_accuracy, env.current_epoch) == (1, 10.0, 2)


def busy_env() -> EnvState:
    env = EnvState(0, blueprint_spawns={"norm": 2}, blueprint_prunes={"norm": 1})
    env.blueprint_fossilized = {"mlp": 1}
    for stage in ("GERMINATED", "TRAINING", "BLENDING", "HOLDING", "FOSSILIZED", "PRUNED"):
        env.seeds[stage.lower()] = SeedState(
            stage.lower(),
            stage,
            "norm",
            alpha=0.5,
            seed_params=7,
            epochs_in_stage=3,
            improvement=4.0,
            counterfactual=2.0,
            blend_tempo_epochs=8,
            alpha_curve="COSINE",
            interaction_sum=1.5,
        )
    env.counterfactual_matrix = CounterfactualSnapshot(("a",), [CounterfactualConfig((True,), 9.0)])
    env.lifecycle_events = [SeedLifecycleEvent(1, "[auto]", "A", "B", "norm", "r0c0")]
    env.reward_components.total = 1.25
    env.add_reward(2.0, 1)
    env.add_action("WAIT")
    env.add_accuracy(30.0, 1)
    return env


def test_at_a_new_best_the_seeds_that_take_part_are_remembered() -> None:
    assert set(busy_env().best_seeds) == {"blending", "holding", "fossilized"}


def test_what_is_remembered_of_a_seed_is_its_state_and_not_its_fate() -> None:
    assert busy_env().best_seeds["holding"] == SeedState(
        "holding", "HOLDING", "norm", alpha=0.5, seed_params=7, epochs_in_stage=3
    )


def test_at_a_new_best_everything_else_is_copied_too() -> None:
    env = busy_env()
    assert env.best_reward_components is not None
    assert env.best_reward_components.total == 1.25
    assert env.best_counterfactual_matrix == env.counterfactual_matrix
    assert env.best_action_history == ["WAIT"]
    assert env.peak_cumulative_reward == 2.0
    assert env.best_blueprint_spawns == {"norm": 2}
    assert env.best_blueprint_prunes == {"norm": 1}
    assert env.best_blueprint_fossilized == {"mlp": 1}


def test_remembered_values_do_not_change_with_later_ones() -> None:
    env = busy_env()
    env.seeds["holding"].alpha = 1.0
    env.reward_components.total = -5.0
    env.counterfactual_matrix.configs.clear()
    env.blueprint_spawns["norm"] = 99
    env.lifecycle_events.clear()
    env.add_action("PRUNE")
    env.add_reward(10.0, 2)
    env.add_accuracy(20.0, 2)
    assert env.best_seeds["holding"].alpha == 0.5
    assert env.best_reward_components is not None
    assert env.best_reward_components.total == 1.25
    assert env.best_counterfactual_matrix is not None
    assert len(env.best_counterfactual_matrix.configs) == 1
    assert env.best_blueprint_spawns == {"norm": 2}
    assert env.best_action_history == ["WAIT"]
    assert env.peak_cumulative_reward == 2.0


def test_a_matrix_without_slots_is_not_worth_remembering() -> None:
    assert trained(10.0).best_counterfactual_matrix is None


@pytest.mark.parametrize(
    ("accuracies", "status"),
    [
        ([], "initializing"),
        ([0.0], "initializing"),
        ([10.0], "healthy"),
        ([80.0], "healthy"),
        ([80.1], "excellent"),
        ([10.0] * 11, "healthy"),
        ([10.0] * 13, "healthy"),
        ([10.0] * 14, "stalled"),
        ([10.0] * 14 + [11.0], "healthy"),
        ([50.0, 48.0, 46.0], "healthy"),
        ([50.0, 48.0, 46.0, 44.0], "degraded"),
        ([50.0, 49.0, 48.0, 47.0], "healthy"),
        ([50.0, 48.0, 46.0, 46.0, 44.0], "degraded"),
        ([50.0, 48.0, 46.0, 46.5, 44.0], "healthy"),
        ([50.0, 48.0, 46.0, 44.0, 44.5], "degraded"),
        ([50.0, 48.0, 46.0, 44.0, 51.0], "healthy"),
    ],
)
def test_bad_news_needs_three_epochs_and_good_news_one(
    accuracies: list[float], status: str
) -> None:
    assert trained(*accuracies).status == status


def test_a_decline_outranks_a_stall() -> None:
    stalled = [50.0] + [49.0] * 14
    assert trained(*stalled).status == "stalled"
    assert trained(*stalled, 47.0, 45.0, 43.0).status == "degraded"


@given(st.lists(st.floats(), max_size=30))
def test_no_accuracy_upsets_an_environment(accuracies: list[float]) -> None:
    env = trained(*accuracies)
    assert env.status in ENV_STATUSES
    assert not math.isnan(env.best_accuracy)


FOLLOWED = (
    "host_accuracy",
    "current_epoch",
    "best_accuracy",
    "best_accuracy_epoch",
    "epochs_since_improvement",
    "stall_counter",
    "degraded_counter",
    "status",
)


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_an_environment_fed_a_recorded_run_follows_the_real_one(name: str) -> None:
    expected = {
        reported["after_seq"]: reported["snapshot"]["envs"] for reported in lines(name, "snapshots")
    }
    envs = {number: EnvState(number) for number in (0, 1)}
    compared = 0
    for seq, event in enumerate(lines(name, "telemetry"), start=1):
        data = event["data"]
        if event["event_type"] == "EPOCH_COMPLETED":
            envs[data["env_id"]].add_accuracy(data["val_accuracy"], data["inner_epoch"])
        elif event["event_type"] == "BATCH_EPOCH_COMPLETED":
            envs = {
                number: EnvState(
                    number, stall_counter=e.stall_counter, degraded_counter=e.degraded_counter
                )
                for number, e in envs.items()
            }
        for number, env in envs.items() if seq in expected else ():
            recorded = expected[seq][str(number)]
            assert {f: getattr(env, f) for f in FOLLOWED} == {f: recorded[f] for f in FOLLOWED}
            assert list(env.accuracy_history) == recorded["accuracy_history"]
            compared += 1
    assert compared >= 14
