"""What is asked of the action heads, and from which values on they are in trouble."""

from __future__ import annotations

from grafana.generator.look import (
    BAD,
    DIM,
    GOOD,
    HEAD_STATES,
    MISSING,
    WARNING,
    falling,
    rising,
    value,
    values,
    within,
)
from grafana.generator.panels import RUN_NAME
from grafana.generator.queries import (
    RUN,
    SCOPE,
    by,
    over_range,
    select,
    worst,
)

from esper_exporter import health

HEAD = "esper_tamiyo_head"
OF_HEADS = SCOPE + ',head=~"$head",head!~"value|q"'
"""The action heads; the critic's heads have a gradient too, but choose nothing."""
HEAD_NAME = f"{{{{head}}}} {RUN_NAME}"
NORM = worst("max", f"{HEAD}_grad_norm", "head", scope=OF_HEADS)
PREVIOUS = worst("max", f"{HEAD}_grad_norm_previous", "head", scope=OF_HEADS)
CHOICE_ENTROPY = worst("min", f"{HEAD}_choice_entropy_ratio", "head", scope=OF_HEADS)
STATE_NUMBERS = {state: number for state, (number, _, _) in HEAD_STATES.items() if number}


def latched(kind: str) -> str:
    """Whether a head was latched within the time range; it outlives the trainer."""
    selector = select(f"{HEAD}_nonfinite_latched", OF_HEADS, kind=kind)
    return by("max", (*RUN, "head"), over_range("max_over_time", selector))


def first_time(kind: str) -> str:
    """When a head was latched first, in milliseconds."""
    selector = select(f"{HEAD}_nonfinite_first_timestamp_seconds", OF_HEADS, kind=kind)
    return f"1000 * {by('min', (*RUN, 'head'), over_range('last_over_time', selector))}"


_STABLE, _LOW, _HIGH = (
    health.GRAD_TREND_STABLE,
    health.HEAD_GRAD_NORM_LOW,
    health.HEAD_GRAD_NORM_HIGH,
)
TREND = (
    f"sgn({NORM} - {PREVIOUS}) * (abs({NORM} - {PREVIOUS}) >= bool {_STABLE})"
    f" * (3 - 2 * ({NORM} < bool {_LOW}) - ({NORM} > bool {_HIGH}))"
)
"""±1 below the healthy range, ±2 above it, ±3 within; 0 where the norm hardly changed."""

TREND_WORDS = values(
    value(0, "→ stable", DIM),
    value(1, "↗ recovering", GOOD),
    value(-1, "↘ vanishing", BAD),
    value(2, "↗ growing", BAD),
    value(-2, "↘ easing", GOOD),
    value(3, "↗", DIM),
    value(-3, "↘", DIM),
)

ENTROPY_LEVELS = falling(health.HEAD_ENTROPY_WARNING, health.HEAD_ENTROPY_CRITICAL)
NORM_LEVELS = (
    (None, MISSING),
    (0.0, BAD),
    (health.HEAD_GRAD_NORM_DEAD, WARNING),
    (_LOW, GOOD),
    (_HIGH, WARNING),
    (health.HEAD_GRAD_NORM_EXPLODING, BAD),
)
RATIO_LEVELS = within(health.HEAD_RATIO_WARNING, health.HEAD_RATIO_CRITICAL)
CV_LEVELS = rising(health.GRADIENT_CV_WARNING, health.GRADIENT_CV_CRITICAL)
