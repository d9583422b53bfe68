"""Thresholds and head states, as the ActionHeadsPanel document has them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter import health
from esper_exporter.health import HeadState, Level

NUMBERS = st.none() | st.floats()


@pytest.mark.parametrize(
    ("head", "norm", "entropy", "slots", "state"),
    [
        ("op", 0.005, 0.05, 3, HeadState.DEAD),
        ("op", 6.0, 0.05, 3, HeadState.EXPLODING),
        ("slot", 1.0, 0.05, 1, HeadState.DETERMINISTIC),
        ("slot", 1.0, 0.05, 3, HeadState.COLLAPSED),
        ("op", 1.0, 0.05, 1, HeadState.COLLAPSED),
        ("op", 1.0, 0.95, 3, HeadState.CONFUSED),
        ("op", 1.0, 0.5, 3, HeadState.HEALTHY),
        ("op", 1.0, 0.8, 3, HeadState.INDETERMINATE),
        ("op", 3.0, 0.95, 3, HeadState.INDETERMINATE),
        ("op", None, 0.5, 3, HeadState.UNKNOWN),
        ("op", 1.0, math.nan, 3, HeadState.UNKNOWN),
    ],
)
def test_a_head_is_classified_by_the_first_row_that_fits(
    head: str, norm: float | None, entropy: float, slots: int, state: HeadState
) -> None:
    assert health.classify_head(head, norm, entropy, slots) is state


@pytest.mark.parametrize(
    ("level", "value", "expected"),
    [
        (health.entropy_level, 0.51, Level.HEALTHY),
        (health.entropy_level, 0.5, Level.WARNING),
        (health.entropy_level, 0.25, Level.CRITICAL),
        (health.head_gradient_level, 0.009, Level.CRITICAL),
        (health.head_gradient_level, 0.05, Level.WARNING),
        (health.head_gradient_level, 0.1, Level.HEALTHY),
        (health.head_gradient_level, 2.1, Level.WARNING),
        (health.head_gradient_level, 5.1, Level.CRITICAL),
        (health.head_ratio_level, 1.2, Level.HEALTHY),
        (health.head_ratio_level, 1.4, Level.WARNING),
        (health.head_ratio_level, 0.4, Level.CRITICAL),
        (health.gradient_cv_level, 0.4, Level.HEALTHY),
        (health.gradient_cv_level, 0.5, Level.WARNING),
        (health.gradient_cv_level, 2.0, Level.CRITICAL),
        (health.grad_norm_level, 10.1, Level.CRITICAL),
        (health.kl_level, 0.02, Level.WARNING),
        (health.log_prob_level, -60.0, Level.WARNING),
        (health.log_prob_level, -100.0, Level.CRITICAL),
        (health.memory_level, 0.91, Level.CRITICAL),
        (health.count_level, 0, Level.HEALTHY),
        (health.count_level, 1, Level.CRITICAL),
    ],
)
def test_levels_change_at_their_thresholds(level: object, value: float, expected: Level) -> None:
    assert callable(level)
    assert level(value) is expected


@pytest.mark.parametrize(
    ("norm", "before", "arrow", "level"),
    [
        (1.0, 1.005, "→", Level.UNKNOWN),
        (0.05, 0.01, "↗", Level.HEALTHY),
        (0.05, 0.09, "↘", Level.CRITICAL),
        (3.0, 2.0, "↗", Level.CRITICAL),
        (3.0, 4.0, "↘", Level.HEALTHY),
        (1.0, 0.5, "↗", Level.UNKNOWN),
    ],
)
def test_a_trend_is_good_or_bad_by_where_it_comes_from(
    norm: float, before: float, arrow: str, level: Level
) -> None:
    assert health.gradient_trend(norm, before) == (arrow, level)


def test_forced_steps_are_taken_out_of_the_entropy() -> None:
    assert health.normalized_entropy_where_choice(0.2, 0.25) == 0.8
    assert health.normalized_entropy_where_choice(0.0, 0.0) is None
    assert health.normalized_entropy_where_choice(None, 0.5) is None


@given(NUMBERS, NUMBERS)
def test_nothing_that_is_not_a_number_is_healthy_and_nothing_fails(
    value: float | None, other: float | None
) -> None:
    levels = [
        health.entropy_level,
        health.head_gradient_level,
        health.head_ratio_level,
        health.gradient_cv_level,
        health.count_level,
        health.grad_norm_level,
        health.ratio_max_level,
        health.ratio_min_level,
        health.clip_fraction_level,
        health.kl_level,
        health.explained_variance_level,
        health.value_correlation_level,
        health.log_prob_level,
        health.fragmentation_level,
        health.memory_level,
        health.wait_share_level,
        health.low_return_variance_level,
    ]
    for level in levels:
        unknown = value is None or math.isnan(value)
        assert (level(value) is Level.UNKNOWN) == unknown
    health.gradient_trend(value, other)
    health.classify_head("op", value, other, 3)
    health.decision_freshness(value)
    assert 0 <= health.confidence_blocks(value) <= 5
