"""What was never reported is not on the page."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS
from esper_exporter.metrics.catalogue import catalogue
from support.pages import Key, samples, value
from support.partial_events import partial_runs
from support.states import emitted, event, started, update

OWN_LOOP = Path(__file__).parents[2] / "examples" / "own_loop.py"

PLACES = frozenset({"env_id", "tempo_idx", "seed_mask", "skipped"})
"""Fields that say what an event is about; `otherwise` leaves them."""

COUNTS = frozenset(
    {
        # of events, by what they are about
        *("esper_kasmina_active_slots", "esper_kasmina_env_active_seeds", "esper_kasmina_slots"),
        *("esper_kasmina_env_blueprint_fossilized", "esper_kasmina_env_blueprint_prunes"),
        *("esper_kasmina_env_blueprint_spawns", "esper_kasmina_env_fossilized_seeds"),
        *("esper_kasmina_env_pruned_seeds", "esper_kasmina_env_fossilized_params"),
        *("esper_kasmina_fossilizations_per_episode", "esper_kasmina_germinations_per_episode"),
        *("esper_kasmina_prunes_per_episode", "esper_kasmina_blend_success_ratio"),
        *("esper_kasmina_env_growth_ratio", "esper_simic_best_run_growth_ratio"),
        *("esper_simic_seed_yield_ratio", "esper_simic_slot_utilization_ratio"),
        *("esper_simic_env_reward_steps", "esper_simic_env_gaming_steps"),
        *("esper_tamiyo_env_actions", "esper_tamiyo_episode_actions", "esper_tamiyo_wait_ratio"),
        *("esper_tamiyo_running_episode_actions", "esper_simic_action_entropy_ratio"),
        *("esper_tolaria_env_degraded_epochs", "esper_tolaria_env_stall_epochs"),
        *("esper_tolaria_env_epochs_since_improvement", "esper_tolaria_batches_per_second"),
        *("esper_simic_episodes_per_second", "esper_simic_best_run_env"),
        *("esper_simic_best_run_episode", "esper_tolaria_env_best_accuracy_episode"),
        # of other reports that come to the same
        *("esper_run_progress_ratio", "esper_simic_episode_steps_std", "esper_tamiyo_op_valid"),
        *("esper_simic_episode_timeout_ratio", "esper_simic_episode_success_ratio"),
        *("esper_simic_env_peak_cumulative_reward", "esper_simic_best_run_peak_cumulative_reward"),
        *("esper_simic_steps_per_prune", "esper_simic_steps_per_germination"),
        *("esper_simic_steps_per_fossilization", "esper_tamiyo_collapse_risk_ratio"),
        *("esper_tamiyo_entropy_clip_correlation", "esper_tamiyo_dead_layers"),
        "esper_tamiyo_head_choice_entropy_ratio",  # at most 1, whatever the two it is made of
        # of an event's envelope, which stays as it is
        "esper_tolaria_env_epoch",
        # of the exporter's own making
        *("esper_run_active", "esper_run_finished", "esper_tamiyo_explosion_grad_norm"),
        *("esper_tamiyo_head_entropy_coefficient", "esper_torch_memory_fragmentation_ratio"),
    }
)
"""Gauges that may stay the same although every reported value changed."""


def otherwise(reported: Any, name: str = "") -> Any:
    """The same report with every number and flag changed."""
    if name in PLACES:
        return reported
    if isinstance(reported, bool):
        return not reported
    if isinstance(reported, int):
        return reported + 3
    if isinstance(reported, float):
        return reported * 1.75 + 0.3
    if isinstance(reported, dict):
        return {key: otherwise(each, key) for key, each in reported.items()}
    if isinstance(reported, list):
        return [otherwise(each, name) for each in reported]
    return reported


def gauges(exporter: Exporter) -> dict[Key, float]:
    """The gauges of runs, but for times and enumerations."""
    wanted = {
        metric.name
        for metric in catalogue().metrics
        if metric.kind == "gauge"
        and metric.labels[:1] == ("run_id",)
        and not metric.states
        and "timestamp" not in metric.name
        and "nonfinite" not in metric.name
    }
    page = samples(exporter.render().decode())
    return {key: sample for key, sample in page.items() if key[0] in wanted}


@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(partial_runs(12))
def test_a_gauge_that_says_the_same_whatever_was_reported_is_not_there(
    events: list[dict[str, Any]],
) -> None:
    changed = [{**each, "data": otherwise(each["data"])} for each in events]
    one, other = gauges(emitted(*events)), gauges(emitted(*changed))
    untold = {
        key
        for key, sample in one.items()
        if key[0] not in COUNTS and key in other and other[key] == sample
    }
    assert not untold, sorted((key[0], one[key]) for key in untold)


@pytest.mark.parametrize(
    ("slot", "stage", "mean"),
    [("r0c0", "TRAINING", 3.0), ("r0c0", "DORMANT", None), ("r9c9", "TRAINING", None)],
)
def test_the_mean_of_stage_epochs_is_absent_where_no_slot_holds_a_measured_seed(
    slot: str, stage: str, mean: float | None
) -> None:
    epoch = {
        "env_id": 0,
        "val_accuracy": 50.0,
        "val_loss": 1.0,
        "inner_epoch": 1,
        "seeds": {slot: {"stage": stage, "epochs_in_stage": 3}},
    }
    page = emitted(started(), event("TOLARIA_EPOCH_COMPLETED", epoch, 1.0)).render().decode()
    shown = {key[0]: sample for key, sample in samples(page).items()}
    assert shown.get("esper_kasmina_mean_stage_epochs") == mean


NEVER_REPORTED = (
    *("esper_tamiyo_entropy_coefficient", "esper_tamiyo_head_grad_norm_previous"),
    *("esper_tamiyo_entropy_velocity", "esper_tamiyo_collapse_risk_ratio"),
    *("esper_tamiyo_entropy_clip_correlation", "esper_tamiyo_learning_rate"),
    *("esper_run_batch", "esper_run_progress_ratio", "esper_run_epoch", "esper_run_episode"),
    *("esper_simic_slot_utilization_ratio", "esper_torch_compile_enabled"),
    *("esper_kasmina_active_slots", "esper_kasmina_mean_stage_epochs", "esper_kasmina_slots"),
    *("esper_kasmina_germinations_per_episode", "esper_kasmina_prunes_per_episode"),
    *("esper_kasmina_fossilizations_per_episode", "esper_tamiyo_update_duration_seconds"),
    *("esper_tamiyo_trust_region_violations_total", "esper_tamiyo_log_prob_underflows_total"),
    *("esper_tamiyo_amp_overflows_total", "esper_tamiyo_loss_scale_updates_total"),
    *("esper_tamiyo_masked_decisions_total", "esper_simic_gaming_steps_total"),
    *("esper_tamiyo_decision_confidence_ratio", "esper_simic_phase_cpu_seconds_total"),
)


@pytest.mark.parametrize("updates", [0, 1])
def test_a_loop_that_reports_updates_has_nothing_else_on_its_page(updates: int) -> None:
    loop = runpy.run_path(str(OWN_LOOP))
    exporter = emitted(event("TRAINING_STARTED", loop["STARTED"]))
    for number in range(1, updates + 1):
        exporter.emit(event("PPO_UPDATE_COMPLETED", loop["policy_update"](number), number))
    page = exporter.render().decode()
    shown = {key[0] for key in samples(page)}
    for name in NEVER_REPORTED:
        assert not shown & {name, f"{name}_count", f"{name}_bucket"}, name
    assert not {
        name
        for name in shown
        if name.startswith("esper_kasmina") and not name.endswith(("_total", "_bucket"))
    } - {"esper_kasmina_configured_slots"}
    for head in AUX_HEADS:
        assert f'head="{head}"' not in page


def test_the_gradient_norm_before_comes_with_the_second_update() -> None:
    loop = runpy.run_path(str(OWN_LOOP))
    exporter = emitted(event("TRAINING_STARTED", loop["STARTED"]))
    for number in (1, 2):
        reported = loop["policy_update"](number)
        before = value(exporter.render().decode(), "esper_tamiyo_head_grad_norm", head="op")
        exporter.emit(event("PPO_UPDATE_COMPLETED", reported, number))
        page = exporter.render().decode()
        assert value(page, "esper_tamiyo_head_grad_norm_previous", head="op") == before


@pytest.mark.parametrize("named_by", ["start", "update"])
def test_a_policy_that_names_its_heads_has_those_and_no_others(named_by: str) -> None:
    mine = {"action_heads": ["steer", "brake"]}
    exporter = emitted(
        started(**(mine if named_by == "start" else {})),
        update(1.0, **mine, head_updates={"steer": {"grad_norm": 0.5, "entropy": 0.25}}),
    )
    page = exporter.render().decode()
    heads = {label for key in samples(page) for name, label in key[1] if name == "head"}
    assert heads == {"steer", "brake"}
    assert (
        len([key for key in samples(page) if key[0] == "esper_tamiyo_head_nonfinite_latched"]) == 4
    )
    for head in HEADS:
        assert f"entropy_collapse_{head}" not in page
    assert value(page, "esper_simic_anomalies_total", type="entropy_collapse_steer") == 0
    assert value(page, "esper_tamiyo_head_update_grad_norm_count", head="steer") == 1


@given(st.sets(st.sampled_from(["entropy", "grad_norm", "value_loss", "clip_fraction"])))
@settings(deadline=None, max_examples=20)
def test_an_aggregated_snapshot_shows_what_it_has(fields: set[str]) -> None:
    exporter = Exporter(port=0)
    tamiyo = dict.fromkeys(fields, 0.0) | {"ppo_data_received": True}
    exporter.observe_snapshot({"run_id": "r", "tamiyo": tamiyo})
    shown = {name for (name, _), _ in gauges(exporter).items() if name.startswith("esper_tamiyo_")}
    names = {
        "entropy": "esper_tamiyo_policy_entropy",
        "grad_norm": "esper_tamiyo_grad_norm",
        "value_loss": "esper_tamiyo_value_loss",
        "clip_fraction": "esper_tamiyo_clipped_ratio",
    }
    assert shown - {"esper_tamiyo_explosion_grad_norm"} == {names[name] for name in fields}
