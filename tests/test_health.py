"""Health: thresholds of the panel document and of the real system, and the states of heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter import health
from esper_exporter.health import HEAD_STATES, HeadState, Level

H, W, C, U = Level.HEALTHY, Level.WARNING, Level.CRITICAL, Level.UNKNOWN

Judge = Callable[[float | None], Level]

LEVELS: list[tuple[Judge, list[tuple[float, Level]]]] = [
    (
        health.entropy_level,
        [(math.inf, C), (1.0, H), (0.51, H), (0.5, W), (0.26, W), (0.25, C), (0.0, C)],
    ),
    (
        health.head_gradient_level,
        [
            (0.0, C),
            (0.009, C),
            (0.01, W),
            (0.09, W),
            (0.1, H),
            (2.0, H),
            (2.1, W),
            (5.0, W),
            (5.1, C),
        ],
    ),
    (
        health.head_ratio_level,
        [(0.8, H), (1.2, H), (0.79, W), (1.21, W), (0.5, W), (1.5, W), (0.49, C), (1.51, C)],
    ),
    (health.gradient_cv_level, [(0.0, H), (0.49, H), (0.5, W), (1.99, W), (2.0, C), (math.inf, C)]),
    (health.count_level, [(0, H), (1, C), (100, C)]),
    (health.grad_norm_level, [(5.0, H), (5.01, W), (10.0, W), (10.01, C), (math.inf, C)]),
    (health.clip_fraction_level, [(0.25, H), (0.26, W), (0.30, W), (0.31, C)]),
    (health.kl_level, [(-1e-9, H), (0.015, H), (0.016, W), (0.03, W), (0.031, C)]),
    (
        health.explained_variance_level,
        [(math.inf, C), (1.0, H), (0.31, H), (0.29, W), (0.01, W), (-0.01, C)],
    ),
    (health.memory_level, [(0.5, H), (0.9, H), (0.91, C), (1.0, C)]),
]

JUDGES = [judge for judge, _ in LEVELS]


@pytest.mark.parametrize(
    ("judge", "value", "level"),
    [
        pytest.param(judge, value, level, id=f"{judge.__name__}-{value}")
        for judge, cases in LEVELS
        for value, level in cases
    ],
)
def test_a_value_is_judged_by_its_thresholds(judge: Judge, value: float, level: Level) -> None:
    assert judge(value) is level


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.__name__)
@pytest.mark.parametrize("missing", [None, math.nan])
def test_what_was_not_measured_is_unknown(judge: Judge, missing: float | None) -> None:
    assert judge(missing) is U


@given(st.sampled_from(JUDGES), st.none() | st.floats())
def test_every_number_has_a_level(judge: Judge, value: float | None) -> None:
    assert (judge(value) is U) == (value is None or math.isnan(value))


def test_every_judgement_is_tested() -> None:
    known = {judge.__name__ for judge in JUDGES}
    assert {name for name in vars(health) if name.endswith("_level")} == known


@pytest.mark.parametrize(
    ("now", "before", "trend"),
    [
        (1.0, 1.0, ("→", U)),
        (1.009, 1.0, ("→", U)),
        (1.02, 1.0, ("↗", U)),
        (0.98, 1.0, ("↘", U)),
        (0.05, 0.02, ("↗", H)),
        (0.05, 0.09, ("↘", C)),
        (3.0, 2.5, ("↗", C)),
        (3.0, 4.0, ("↘", H)),
        (math.inf, 1.0, ("↗", C)),
        (math.nan, 1.0, ("", U)),
        (1.0, math.nan, ("", U)),
        (None, 1.0, ("", U)),
        (1.0, None, ("", U)),
    ],
)
def test_a_gradient_trend_is_good_or_bad_by_where_it_comes_from(
    now: float | None, before: float | None, trend: tuple[str, Level]
) -> None:
    assert health.gradient_trend(now, before) == trend


@pytest.mark.parametrize(
    ("head", "norm", "entropy", "slots", "state"),
    [
        ("op", 0.009, 0.09, 3, HeadState.DEAD),
        ("slot", 0.009, 0.09, 1, HeadState.DEAD),
        ("op", 0.009, 0.1, 3, HeadState.INDETERMINATE),
        ("op", 5.01, 0.5, 3, HeadState.EXPLODING),
        ("op", 5.01, 0.0, 3, HeadState.EXPLODING),
        ("slot", 5.01, 0.0, 1, HeadState.EXPLODING),
        ("op", math.inf, 0.5, 3, HeadState.EXPLODING),
        ("slot", 1.0, 0.09, 1, HeadState.DETERMINISTIC),
        ("slot", 1.0, 0.09, 2, HeadState.COLLAPSED),
        ("tempo", 1.0, 0.09, 1, HeadState.COLLAPSED),
        ("tempo", 4.0, 0.0, 3, HeadState.COLLAPSED),
        ("op", 1.0, 0.91, 3, HeadState.CONFUSED),
        ("op", 3.0, 0.91, 3, HeadState.INDETERMINATE),
        ("op", 0.05, 0.91, 3, HeadState.INDETERMINATE),
        ("op", 1.0, 0.3, 3, HeadState.HEALTHY),
        ("op", 1.0, 0.7, 3, HeadState.HEALTHY),
        ("op", 0.1, 0.5, 3, HeadState.HEALTHY),
        ("op", 2.0, 0.5, 3, HeadState.HEALTHY),
        ("op", 2.01, 0.5, 3, HeadState.INDETERMINATE),
        ("op", 1.0, 0.2, 3, HeadState.INDETERMINATE),
        ("op", 1.0, 0.8, 3, HeadState.INDETERMINATE),
        ("op", 1.0, 0.9, 3, HeadState.INDETERMINATE),
        ("op", None, 0.5, 3, HeadState.UNKNOWN),
        ("op", 1.0, None, 3, HeadState.UNKNOWN),
        ("op", math.nan, 0.5, 3, HeadState.UNKNOWN),
        ("op", 1.0, math.nan, 3, HeadState.UNKNOWN),
    ],
)
def test_a_head_is_in_the_first_state_of_the_table_that_fits(
    head: str, norm: float | None, entropy: float | None, slots: int, state: HeadState
) -> None:
    assert health.classify_head(head, norm, entropy, slots) is state


@given(
    st.sampled_from(["slot", "op", "no such head"]),
    st.none() | st.floats(),
    st.none() | st.floats(),
    st.integers(0, 9),
)
def test_every_head_is_in_one_known_state(
    head: str, norm: float | None, entropy: float | None, slots: int
) -> None:
    assert health.classify_head(head, norm, entropy, slots).value in HEAD_STATES


def test_the_head_states_have_a_fixed_order() -> None:
    assert HEAD_STATES == (
        "dead",
        "exploding",
        "deterministic",
        "collapsed",
        "confused",
        "healthy",
        "indeterminate",
        "unknown",
    )


@pytest.mark.parametrize(
    ("mean", "fraction", "entropy"),
    [
        (0.5, 0.5, 1.0),
        (0.08, 0.1, 0.8),
        (0.9, 1.0, 0.9),
        (0.0, 0.5, 0.0),
        (0.0, 0.0, None),
        (0.5, -0.1, None),
        (0.5, None, None),
        (None, 0.5, None),
        (0.5, math.nan, None),
    ],
)
def test_entropy_where_a_head_had_a_choice_leaves_forced_steps_out(
    mean: float | None, fraction: float | None, entropy: float | None
) -> None:
    found = health.normalized_entropy_where_choice(mean, fraction)
    assert found == (None if entropy is None else pytest.approx(entropy))


@given(st.none() | st.floats(), st.none() | st.floats())
def test_entropy_where_a_head_had_a_choice_never_raises(
    mean: float | None, fraction: float | None
) -> None:
    health.normalized_entropy_where_choice(mean, fraction)
