"""Trends: velocities, correlations, collapse risk, labels and sparklines."""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.state.trends import (
    TREND_THRESHOLDS,
    compute_collapse_risk,
    compute_correlation,
    compute_entropy_velocity,
    detect_rate_trend,
    detect_trend,
    make_sparkline,
    trend_to_indicator,
)

RECORDINGS = Path(__file__).parents[1] / "recordings"

any_values = st.lists(st.floats(), max_size=30)
plausible = st.lists(st.floats(-1e6, 1e6), max_size=30)


@pytest.mark.parametrize(
    ("values", "velocity"),
    [
        ([], 0.0),
        ([1.0, 2.0, 3.0, 4.0], 0.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1.0),
        ([5.0, 4.5, 4.0, 3.5, 3.0, 2.5], -0.5),
        ([7.0] * 9, 0.0),
        ([100.0] * 5 + [float(n) for n in range(10)], 1.0),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 0.2),
    ],
)
def test_entropy_velocity_is_the_slope_of_the_last_ten(
    values: list[float], velocity: float
) -> None:
    assert compute_entropy_velocity(values) == pytest.approx(velocity, abs=1e-12)
    assert compute_entropy_velocity(deque(values)) == pytest.approx(velocity, abs=1e-12)


def test_a_slope_beyond_a_float_is_no_velocity() -> None:
    assert compute_entropy_velocity([-1.7e308, 1.7e308] * 3) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_entropy_that_is_not_finite_has_no_velocity_and_no_warning(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute_entropy_velocity([1.0, 2.0, bad, 4.0, 5.0, 6.0]) == 0.0


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_entropy_velocity_is_that_of_the_real_system(name: str) -> None:
    lines = gzip.decompress((RECORDINGS / f"{name}.snapshots.jsonl.gz").read_bytes()).splitlines()
    for line in lines:
        tamiyo = json.loads(line)["snapshot"]["tamiyo"]
        computed = compute_entropy_velocity(tamiyo["entropy_history"])
        assert computed == pytest.approx(tamiyo["entropy_velocity"], rel=1e-9, abs=0.0)


RISING = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("x", "y", "correlation"),
    [
        (RISING, [2.0, 4.0, 6.0, 8.0, 10.0], 1.0),
        (RISING, [5.0, 4.0, 3.0, 2.0, 1.0], -1.0),
        (RISING, [2.0, 1.0, 4.0, 3.0, 5.0], 0.8),
        (RISING, [3.0] * 5, 0.0),
        (RISING[:4], RISING[:4], 0.0),
        (RISING, RISING[:4], 0.0),
        ([9.0, -9.0, *RISING], RISING, 1.0),
        ([50.0, 3.0, 9.0, *RISING, *RISING], [0.0, *RISING, *RISING], 1.0),
        (RISING, [1.0, 2.0, math.nan, 4.0, 5.0], 0.0),
        ([v * 1e-6 for v in RISING], [v * 1e-6 for v in RISING], 0.0),
    ],
)
def test_correlation_is_pearsons_of_what_both_histories_end_with(
    x: list[float], y: list[float], correlation: float
) -> None:
    assert compute_correlation(x, y) == pytest.approx(correlation)


@given(plausible, plausible)
def test_correlation_is_symmetric_and_stays_within_one(x: list[float], y: list[float]) -> None:
    found = compute_correlation(x, y)
    assert abs(found) <= 1.0 + 1e-9
    assert found == pytest.approx(compute_correlation(y, x))


def falling(current: float, velocity: float) -> list[float]:
    """Ten entropies that fall by ``velocity`` each and end at ``current``."""
    return [current + velocity * (9 - place) for place in range(10)]


# With critical 0.3 and healthy 1.39, an entropy of 1.39 is not near at all.
@pytest.mark.parametrize(
    ("distance", "velocity", "time_risk"),
    [
        (1.09, 1.09 / 150, 0.1),
        (1.09, 1.09 / 75, 0.25),
        (1.09, 1.09 / 30, 0.5),
        (1.09, 1.09 / 15, 0.7),
        (1.09, 1.09 / 5, 0.9),
    ],
)
def test_the_sooner_entropy_collapses_the_higher_the_risk(
    distance: float, velocity: float, time_risk: float
) -> None:
    risk = compute_collapse_risk(falling(0.3 + distance, velocity), hysteresis=0.0)
    assert risk == pytest.approx(0.7 * time_risk)


@pytest.mark.parametrize(
    ("values", "risk"),
    [
        ([0.1] * 4, 0.0),
        ([0.3] * 5, 1.0),
        ([1.0, 1.0, 1.0, 1.0, 0.29], 1.0),
        ([1.39] * 5, 0.0),
        ([9.0] * 5, 0.0),
        ([0.845] * 5, 0.15),
        ([0.30000001] * 5, 0.3),
        ([0.4, 0.5, 0.6, 0.7, 0.845], 0.15),
    ],
)
def test_a_steady_or_rising_entropy_is_a_risk_only_by_being_near(
    values: list[float], risk: float
) -> None:
    assert compute_collapse_risk(values, hysteresis=0.0) == pytest.approx(risk, abs=1e-6)


def test_below_the_warning_threshold_time_and_nearness_weigh_the_same() -> None:
    near = 0.3 * (1 - 0.1 / 1.09)
    risk = compute_collapse_risk(falling(0.4, 0.1 / 5), hysteresis=0.0)
    assert risk == pytest.approx(0.5 * 0.9 + 0.5 * near)


def test_thresholds_that_leave_no_room_count_as_near() -> None:
    risk = compute_collapse_risk([2.0] * 5, critical_threshold=1.5, hysteresis=0.0)
    assert risk == pytest.approx(0.3)


@pytest.mark.parametrize(("previous", "kept"), [(0.10, True), (0.22, True), (0.30, False)])
def test_a_small_change_leaves_the_risk_where_it_was(previous: float, kept: bool) -> None:
    risk = compute_collapse_risk([0.845] * 5, previous_risk=previous)
    assert risk == pytest.approx(previous if kept else 0.15)


@given(any_values, st.floats(0.0, 1.0))
def test_collapse_risk_is_always_between_zero_and_one(values: list[float], before: float) -> None:
    assert 0.0 <= compute_collapse_risk(values, previous_risk=before) <= 1.0


STEADY = [1.0, 1.1, 0.9] * 2
DOUBLED = [1.0, 1.1, 0.9, 2.0, 2.1, 1.9]
HALVED = [2.0, 2.1, 1.9, 1.0, 1.1, 0.9]


@pytest.mark.parametrize(
    ("values", "kind", "trend"),
    [
        ([], "loss", "stable"),
        ([1.0, 2.0, 3.0, 4.0], "loss", "stable"),
        ([1.0, 1.0, 9.0, 9.0, 9.0], "loss", "stable"),
        (STEADY, "loss", "stable"),
        (STEADY, "accuracy", "stable"),
        (DOUBLED, "loss", "warning"),
        (DOUBLED, "accuracy", "improving"),
        (HALVED, "loss", "improving"),
        (HALVED, "accuracy", "warning"),
        ([0.0, 0.0, 0.0, 0.01, 0.01, 0.01], "loss", "warning"),
        ([0.0, 0.0, 0.0, 0.009, 0.009, 0.009], "loss", "stable"),
        ([1.0, 1.1, 0.9, 0.0, 2.0, 1.0], "loss", "volatile"),
        ([5.0] * 90 + [1.0] * 20, "loss", "stable"),
    ],
)
def test_a_trend_compares_the_last_window_with_the_one_before(
    values: list[float], kind: str, trend: str
) -> None:
    assert detect_trend(values, metric_type=kind) == trend


@pytest.mark.parametrize(("name", "threshold"), TREND_THRESHOLDS.items())
def test_a_metric_trends_from_its_own_threshold_on(name: str, threshold: float) -> None:
    def change(share: float) -> list[float]:
        return [100.0] * 3 + [100.0 * (1 + share)] * 3

    assert detect_trend(change(threshold * 1.01), name) == "warning"
    assert detect_trend(change(threshold * 0.99), name) == "stable"


def test_a_change_of_exactly_the_threshold_counts() -> None:
    values = [100.0] * 3 + [125.0] * 3
    assert detect_trend(values, "grad_norm") == "warning"
    assert detect_trend(values, "grad_norm", "accuracy") == "improving"


def test_an_unknown_metric_has_the_default_threshold() -> None:
    values = [100.0] * 3 + [116.0] * 3
    assert detect_trend(values, "no such metric") == detect_trend(values, "default") == "warning"


def test_the_thresholds_are_those_of_the_seed_schema() -> None:
    assert TREND_THRESHOLDS == {
        "episode_return": 0.15,
        "entropy": 0.08,
        "policy_loss": 0.20,
        "value_loss": 0.20,
        "kl_divergence": 0.30,
        "clip_fraction": 0.30,
        "grad_norm": 0.25,
        "expl_var": 0.15,
        "default": 0.15,
    }


@given(plausible, st.sampled_from(["loss", "accuracy"]))
def test_a_trend_always_has_one_of_four_names(values: list[float], kind: str) -> None:
    trend = detect_trend(values, metric_type=kind)
    assert trend in {"improving", "stable", "volatile", "warning"}


@pytest.mark.parametrize(
    ("trend", "indicator"),
    [
        ("improving", ("^", "green")),
        ("stable", ("-", "dim")),
        ("volatile", ("~", "yellow")),
        ("warning", ("v", "red")),
        ("no such trend", ("-", "dim")),
    ],
)
def test_a_trend_is_shown_as_one_character_and_a_style(
    trend: str, indicator: tuple[str, str]
) -> None:
    assert trend_to_indicator(trend) == indicator


@pytest.mark.parametrize(
    ("history", "trend"),
    [
        ([], "stable"),
        ([1.0, 9.0, 9.0, 9.0], "stable"),
        ([1.0] * 5, "stable"),
        ([1.0] * 5 + [1.21] * 5, "rising"),
        ([1.0] * 5 + [1.19] * 5, "stable"),
        ([1.0] * 5 + [0.79] * 5, "falling"),
        ([0.0] * 5 + [0.0019] * 5, "stable"),
        ([0.0] * 5 + [0.0021] * 5, "rising"),
        ([9.0] * 5 + [1.0] * 5 + [1.0] * 5, "stable"),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0], "rising"),
    ],
)
def test_a_rate_rises_or_falls_by_more_than_a_fifth(history: list[float], trend: str) -> None:
    assert detect_rate_trend(deque(history)) == trend


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, "────────"),
        ([], 3, "───"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([9, 9, 0, 7], 2, "▁█"),
        ([5.0, 5.0, 5.0], 3, "▅▅▅"),
        ([0.0, math.nan, 7.0], 3, "▁ █"),
        ([math.inf, 0.0, 7.0, -math.inf], 4, " ▁█ "),
    ],
)
def test_a_sparkline_runs_from_the_lowest_block_to_the_highest(
    values: list[float], width: int, line: str
) -> None:
    assert make_sparkline(values, width) == line


@given(any_values, st.integers(-3, 20))
def test_a_sparkline_of_anything_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(make_sparkline(values, width)) <= max(0, width)


@given(any_values)
def test_no_history_upsets_a_velocity_or_a_rate_trend(values: list[float]) -> None:
    compute_entropy_velocity(values)
    assert detect_rate_trend(values) in {"rising", "stable", "falling"}
