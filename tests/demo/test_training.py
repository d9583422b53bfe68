"""A healthy training: the exporter accepts its events, values match, a seed repeats it."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest

from demo.small import RUN, SMALL, Trained, train
from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import HEADS, OPS, STAGES
from esper_exporter.demo import training
from esper_exporter.demo.actions import MATTERS
from support.pages import samples

# Of the process and the exporter, not of the run; and what the process' end adds.
NOT_OF_THE_RUN = ("esper_exporter_", "process_", "python_", "esper_gpu_", "esper_host_")
OF_THE_END = ("esper_run_finished", "esper_run_end_timestamp_seconds", "esper_run_failed")


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(updates=4, epochs=12, envs=2)


def events(trained: Trained, name: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in trained.file.getvalue().splitlines()]
    return [event for event in found if name in (None, event["event_type"])]


def test_the_exporter_accepts_every_emitted_event(trained: Trained) -> None:
    assert sum(trained.values("esper_exporter_events_rejected_total")) == 0
    assert trained.value("esper_exporter_fields_ignored_total") == 0
    assert sum(trained.values("esper_exporter_internal_errors_total")) == 0
    reported = Counter(event["event_type"] for event in events(trained))
    assert reported["TRAINING_STARTED"] == 1
    assert reported["TAMIYO_POLICY_UPDATE"] == reported["TOLARIA_BATCH_COMPLETED"] == 4
    assert reported["TOLARIA_EPOCH_COMPLETED"] == 4 * 2 * 12
    assert reported["EPISODE_OUTCOME"] == 4 * 2
    assert {"SEED_GERMINATED", "SEED_STAGE_CHANGED", "SEED_GATE_EVALUATED"} <= set(reported)


def test_the_page_shows_a_healthy_run(trained: Trained) -> None:
    assert trained.value("esper_tamiyo_updates_total") == 4
    assert trained.value("esper_run_finished") == 1
    assert sum(trained.values("esper_tamiyo_head_nonfinite_latched")) == 0
    assert len(trained.values("esper_tamiyo_head_grad_norm")) >= len(HEADS)
    assert len(trained.values("esper_tamiyo_head_entropy_ratio")) == len(HEADS)
    choices = trained.values("esper_tamiyo_head_choice_entropy_ratio")
    assert choices and all(0 < share <= 1.0001 for share in choices)
    assert trained.values("esper_tamiyo_lstm_hidden_rms")
    assert trained.values("esper_tamiyo_rollout_lstm_hidden_rms")


def test_the_reward_is_the_sum_of_its_parts_and_the_return_the_sum_of_the_rewards(
    trained: Trained,
) -> None:
    returns: Counter[tuple[int, int]] = Counter()
    for event in events(trained, "ANALYTICS_SNAPSHOT"):
        data = event["data"]
        if data["kind"] != "last_action":
            continue
        parts = data["reward_components"]
        names = (
            "base_acc_delta", "bounded_attribution", "compute_rent", "alpha_shock", "stage_bonus",
            "action_shaping", "fossilize_terminal_bonus",
        )  # fmt: skip
        assert data["total_reward"] == pytest.approx(sum(parts[name] for name in names))
        returns[data["env_id"], data["episode_idx"]] += data["total_reward"]
    outcomes = {
        (event["data"]["env_id"], event["data"]["episode_idx"]): event["data"]["episode_reward"]
        for event in events(trained, "EPISODE_OUTCOME")
    }
    assert outcomes == pytest.approx(dict(returns))
    means = [batch.mean_return for batch in trained.batches]
    reported = [event["data"]["avg_reward"] for event in events(trained, "TOLARIA_BATCH_COMPLETED")]
    assert reported == pytest.approx(means)


def test_seeds_go_from_stage_to_stage_without_a_leap(trained: Trained) -> None:
    steps = {
        ("DORMANT", "GERMINATED"), ("GERMINATED", "TRAINING"), ("TRAINING", "BLENDING"),
        ("BLENDING", "HOLDING"), ("HOLDING", "BLENDING"), ("HOLDING", "FOSSILIZED"),
        ("PRUNED", "EMBARGOED"), ("EMBARGOED", "RESETTING"), ("RESETTING", "DORMANT"),
    }  # fmt: skip
    at = dict[tuple[int, int, str], str]()
    for event in events(trained):
        data = event["data"]
        if event["event_type"] == "SEED_GERMINATED":
            place = data["env_id"], data["episode_idx"], data["slot_id"]
            assert at.get(place, "DORMANT") == "DORMANT"
            at[place] = "GERMINATED"
        elif event["event_type"] == "SEED_STAGE_CHANGED":
            place = data["env_id"], data["episode_idx"], data["slot_id"]
            step = data["from_stage"], data["to_stage"]
            assert step[0] == at[place]
            assert step in steps or (step[1] == "PRUNED" and step[0] in STAGES[1:5])
            at[place] = step[1]
    assert len(set(at.values())) > 2


def test_a_decision_is_emitted_as_made(trained: Trained) -> None:
    decisions = [
        event["data"]
        for event in events(trained, "ANALYTICS_SNAPSHOT")
        if event["data"]["kind"] == "last_action"
    ]
    assert {decision["action_name"] for decision in decisions} <= set(OPS)
    for decision in decisions:
        heads = decision["head_telemetry"]
        assert all(0.0 <= share <= 1.0 + 1e-6 for share in heads.values())
        for head in HEADS:
            reported = "curve" if head == "alpha_curve" else head
            assert decision[f"{head}_masked"] == (decision["action_name"] not in MATTERS[head])
            if decision[f"{head}_masked"]:
                assert heads[f"{reported}_entropy"] == 0 and heads[f"{reported}_confidence"] == 1
        assert (decision["blueprint_id"] is None) == (decision["action_name"] != "GERMINATE")
        rest = sum(chance for _, chance in decision["alternatives"])
        assert decision["action_confidence"] + rest <= 1.0 + 1e-6


def test_updates_are_numbered_and_measured(trained: Trained) -> None:
    updates = [event["data"] for event in events(trained, "TAMIYO_POLICY_UPDATE")]
    assert [update["batch"] for update in updates] == [1, 2, 3, 4]
    for update in updates:
        assert update["grad_norm"] <= 0.5 + 1e-4
        assert all(0 <= update[f"head_{head}_active_ratio"] <= 1 for head in HEADS)
        assert math.isfinite(update["policy_loss"])
        assert 0 <= update["forced_step_ratio"] <= 1


def test_the_same_seed_trains_the_same_and_another_does_not(trained: Trained) -> None:
    again = train(updates=2, epochs=12, envs=2)
    other = train(updates=2, epochs=12, envs=2, seed=2)
    reported = [
        [(batch.mean_return, batch.accuracy, batch.entropy) for batch in each.batches[:2]]
        for each in (trained, again, other)
    ]
    assert reported[0] == reported[1]
    assert reported[0] != reported[2]


def test_the_telemetry_file_replays_to_the_same_state(trained: Trained) -> None:
    replayed = Exporter(run_id=RUN, state_dir="off", linger=0, watch_process=False)
    for line in trained.file.getvalue().splitlines():
        replayed.emit_line(line)

    def of_the_run(page: str) -> dict[Any, float]:
        return {
            key: number
            for key, number in samples(page).items()
            if not key[0].startswith((*NOT_OF_THE_RUN, *OF_THE_END))
        }

    live, read = of_the_run(trained.page), of_the_run(replayed.render().decode())
    assert read == pytest.approx(live, nan_ok=True, rel=1e-9)


def test_old_names_beside_the_new_ones_change_nothing_that_is_counted() -> None:
    both = train(updates=2, dual_emit=True)
    names = Counter(event["event_type"] for event in events(both))
    assert names["PPO_UPDATE_COMPLETED"] == names["TAMIYO_POLICY_UPDATE"] == 2
    assert names["BATCH_EPOCH_COMPLETED"] == names["TOLARIA_BATCH_COMPLETED"] == 2
    assert both.value("esper_tamiyo_updates_total") == 2
    assert both.value("esper_tolaria_epochs_total") == 2 * SMALL.envs * SMALL.epochs


def test_mixed_precision_moves_the_loss_scale() -> None:
    mixed = train(updates=4, envs=2, amp=True)
    assert all(batch.carried_out for batch in mixed.batches)
    assert mixed.value("esper_tamiyo_loss_scale") == 2 * 65536.0


def test_the_phases_of_a_batch_are_timed_and_fit_into_it(trained: Trained) -> None:
    profiles = [event["data"] for event in events(trained, "PHASE_PROFILE_COMPLETED")]
    assert [profile["batch_idx"] for profile in profiles] == [1, 2, 3, 4]
    for profile, batch in zip(profiles, trained.batches, strict=True):
        assert set(profile["phases"]) == {"train", "val", "action", "ppo_update"}
        wall = sum(phase["wall_ms"] for phase in profile["phases"].values())
        assert 0 < wall < 1000 * batch.seconds


def test_one_slot_is_no_choice_and_one_environment_is_enough() -> None:
    lone = train(slots=1, updates=2, epochs=8)
    assert all(batch.carried_out for batch in lone.batches)
    assert sum(lone.values("esper_exporter_internal_errors_total")) == 0


def test_a_compiled_policy_reports_its_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "compiler", lambda: "eager")
    compiled = train(updates=1, compile=True, slots=1, epochs=2)
    assert compiled.batches[0].carried_out
    started = events(compiled, "TRAINING_STARTED")[0]["data"]
    assert (started["compile_enabled"], started["compile_backend"]) == (True, "eager")
    assert compiled.value("esper_torch_compile_graph_breaks") is not None
    assert compiled.value("esper_torch_compile_recompilations") is not None


def test_what_compiles_is_a_compiler_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.shutil, "which", lambda name: "/usr/bin/c++")
    assert training.compiler() == "inductor"
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    assert training.compiler() == "aot_eager"
