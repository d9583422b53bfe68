"""A policy update into the state: latches, counts, and what an AMP overflow is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esper_exporter import health
from support.pages import value
from support.states import emitted, event, lit_sources, started, state_after, update

NAN, INF = math.nan, math.inf

OVERFLOW = {"amp_overflow_detected": True, "grad_norm": INF, "inf_grad_count": 3}


@pytest.mark.parametrize(
    ("fields", "sources"),
    [
        ({}, set()),
        ({"head_nan_detected": {"op": True, "slot": False}}, {"log_probs"}),
        ({"head_inf_detected": {"op": True}}, {"log_probs"}),
        ({"nan_grad_count": 1}, {"gradients"}),
        ({"inf_grad_count": 1}, {"gradients"}),
        ({"grad_norm": NAN}, {"gradients"}),
        ({"pre_clip_grad_norm": INF}, {"gradients"}),
        ({"head_op_gradient_state": "nonfinite"}, {"gradients"}),
        ({"head_q_gradient_state": "nonfinite"}, {"gradients"}),
        ({"grad_nan_layers": ["body.0"]}, {"gradients"}),
        ({"head_updates": {"mine": {"gradient_state": "nonfinite"}}}, {"gradients"}),
        ({"policy_loss": NAN}, {"loss"}),
        ({"value_loss": -INF}, {"loss"}),
        ({"lstm_has_nan": True}, {"lstm"}),
        ({"rollout_lstm_has_inf": True}, {"lstm"}),
        ({"ratio_max": NAN}, {"ratio"}),
        ({"explained_variance": NAN}, set()),
    ],
)
def test_each_non_finite_field_lights_its_source(fields: dict[str, Any], sources: set[str]) -> None:
    run = state_after(started(), update(**fields))
    assert lit_sources(run) == sources
    assert run.latched_last == bool(sources)


@pytest.mark.parametrize(
    "fields",
    [
        OVERFLOW,
        {**OVERFLOW, "grad_norm": NAN, "nan_grad_count": 2, "grad_nan_layers": ["body.0"]},
        {**OVERFLOW, "head_op_gradient_state": "nonfinite", "loss_scale": 32768.0},
        {**OVERFLOW, "pre_clip_grad_norm": INF, "update_skipped": True},
        {**OVERFLOW, "amp_overflow_detected": None, "amp_overflow_count": 1}
        | {"grad_scaler_state": "decaying"},
    ],
)
def test_an_overflow_that_the_grad_scaler_handled_is_no_fault(fields: dict[str, Any]) -> None:
    exporter = emitted(started(), update(**fields))
    page = exporter.render().decode()
    assert value(page, "esper_tamiyo_nonfinite_latched", source="gradients") == 0
    assert value(page, "esper_tamiyo_gradient_explosions_total") == 0
    assert value(page, "esper_tamiyo_updates_nonfinite_grad_norm_total") == 0
    assert value(page, "esper_tamiyo_amp_overflows_total") == 1
    assert value(page, "esper_tamiyo_grad_norm_window_max") is None


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"policy_loss": NAN}, "loss"),
        ({"head_nan_detected": {"op": True}}, "log_probs"),
        ({"ratio_max": INF}, "ratio"),
        ({"loss_scale": 1.0}, "gradients"),
        ({"loss_scale": 0.25}, "gradients"),
        ({"amp_overflow_detected": False, "amp_overflow_count": 1}, "gradients"),
    ],
)
def test_an_overflow_excuses_nothing_but_scaled_gradients(
    fields: dict[str, Any], source: str
) -> None:
    run = state_after(started(), update(**(OVERFLOW | fields)))
    assert source in lit_sources(run)


def test_gradients_that_overflow_ten_updates_in_a_row_are_a_fault() -> None:
    bad = [update(n, **OVERFLOW) for n in range(1, 11)]
    assert lit_sources(state_after(started(), *bad[:9])) == set()
    assert lit_sources(state_after(started(), *bad)) == {"gradients"}
    assert lit_sources(state_after(started(), *bad[:9], update(9.5), *bad[9:])) == set()


def test_a_gradient_norm_above_the_threshold_is_an_explosion_overflow_or_not() -> None:
    for fields in ({}, {"amp_overflow_detected": True}):
        exporter = emitted(started(), update(pre_clip_grad_norm=10.5, **fields))
        page = exporter.render().decode()
        assert value(page, "esper_tamiyo_gradient_explosions_total") == 1


@pytest.mark.parametrize(
    ("ages", "largest"),
    [
        ([(0, 3.0), (299, 1.0)], 3.0),
        ([(0, 3.0), (300, 1.0)], 1.0),
        ([(0, 3.0), (100, 7.0), (399, 1.0)], 7.0),
        ([(0, 3.0), (100, 7.0), (401, 1.0)], 1.0),
    ],
)
def test_the_largest_norm_is_that_of_five_minutes(
    ages: list[tuple[float, float]], largest: float
) -> None:
    events = [update(seconds, grad_norm=norm) for seconds, norm in ages]
    assert state_after(started(), *events).grad_norm_window_max == largest


def test_a_policy_update_without_a_nan_count_is_refused_and_keeps_its_latches() -> None:
    broken = update(head_nan_detected={"op": True}, policy_loss=NAN)
    del broken["data"]["nan_grad_count"]
    page = (exporter := emitted(started(), broken)).render().decode()
    assert value(page, "esper_tamiyo_updates_total") == 0
    assert value(page, "esper_exporter_events_rejected_total", reason="missing_field") == 1
    run = exporter._runs.current["default"].state
    assert lit_sources(run) >= {"log_probs"}
    assert list(run.latches.lit_heads()) == [("op", "nan")]


def test_a_malformed_finiteness_anomaly_keeps_its_latches() -> None:

    anomaly = event(
        "NUMERICAL_INSTABILITY_DETECTED",
        {
            "anomaly_type": "ppo_finiteness_skip",
            "detail": "skipped updates: 1. Sources: log_probs[tempo]: NaN detected",
            "episode": "not a number",
        },
        2.0,
    )
    run = state_after(started(), anomaly)
    assert list(run.latches.lit_heads()) == [("tempo", "nan")]
    assert lit_sources(run) == {"log_probs"}


@pytest.mark.parametrize(("factor", "count"), [(1.0, 0), (1.001, 1)])
def test_an_explosion_is_above_the_threshold(factor: float, count: int) -> None:
    page = emitted(started(), update(grad_norm=health.GRAD_NORM_CRITICAL * factor)).render()
    assert value(page.decode(), "esper_tamiyo_gradient_explosions_total") == count
