"""Trend functions of the Sanctum schema."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.state import trends

LISTS = st.lists(st.floats(), max_size=30)


def test_velocity_is_the_slope_of_the_last_ten() -> None:
    assert trends.compute_entropy_velocity([1.0] * 4) == 0.0
    falling = [100.0, *(5.0 - 0.25 * n for n in range(10))]
    assert trends.compute_entropy_velocity(falling) == pytest.approx(-0.25)


def test_correlation_needs_five_pairs_and_variance() -> None:
    line = [float(n) for n in range(10)]
    assert trends.compute_correlation(line, [2 * v + 1 for v in line]) == pytest.approx(1.0)
    assert trends.compute_correlation(line, [-v for v in line]) == pytest.approx(-1.0)
    assert trends.compute_correlation(line[:4], line[:4]) == 0.0
    assert trends.compute_correlation(line, [1.0] * 10) == 0.0


@pytest.mark.parametrize(
    ("history", "risk"),
    [
        ([1.0] * 4, 0.0),
        ([0.2] * 5, 1.0),
        ([1.39] * 5, 0.0),
        ([0.4] * 5, pytest.approx((1 - 0.1 / 1.09) * 0.3)),
        ([1.3, 1.2, 1.1, 1.0, 0.9], pytest.approx(0.7 * 0.9 + 0.3 * (1 - 0.6 / 1.09) * 0.3)),
    ],
)
def test_collapse_risk_grows_as_the_threshold_nears(history: list[float], risk: float) -> None:
    assert trends.compute_collapse_risk(history) == risk


def test_collapse_risk_does_not_flap() -> None:
    assert trends.compute_collapse_risk([0.4] * 5, previous_risk=0.3) == 0.3


@pytest.mark.parametrize(
    ("values", "kind", "trend"),
    [
        ([1.0] * 4, "loss", "stable"),
        ([2.0] * 5 + [1.0] * 5, "loss", "improving"),
        ([1.0] * 5 + [2.0] * 5, "loss", "warning"),
        ([1.0] * 5 + [2.0] * 5, "accuracy", "improving"),
        ([1.0, 1.1, 1.0, 1.1, 1.0, 0.0, 3.0, 0.0, 3.0, 0.0], "loss", "volatile"),
    ],
)
def test_trends_compare_the_last_window_with_the_one_before(
    values: list[float], kind: str, trend: str
) -> None:
    assert trends.detect_trend(values, "default", kind) == trend


def test_indicators_and_sparklines_are_drawn() -> None:
    assert trends.trend_to_indicator("improving") == ("^", "green")
    assert trends.trend_to_indicator("what") == ("-", "dim")
    assert trends.make_sparkline([]) == "─" * 8
    assert trends.make_sparkline([0.0, 1.0, math.nan]) == "▁█ "


@given(LISTS, LISTS)
def test_no_history_makes_a_trend_function_fail(x: list[float], y: list[float]) -> None:
    assert math.isfinite(trends.compute_entropy_velocity([v for v in x if abs(v) < 1e100]))
    trends.compute_entropy_velocity(x)
    trends.compute_correlation(x, y)
    trends.compute_collapse_risk(x)
    assert trends.detect_trend(x) in ("improving", "stable", "volatile", "warning")
    assert trends.detect_rate_trend(x) in ("rising", "stable", "falling")
    assert len(trends.make_sparkline(x, 8)) <= 8
