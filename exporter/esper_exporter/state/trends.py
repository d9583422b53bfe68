"""Trends in short metric histories: slopes, correlations, collapse risk (Sanctum schema)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

MINIMUM_VALUES = 5
WINDOW = 10

TREND_THRESHOLDS: dict[str, float] = {
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
"""Relative change of the mean from which a metric counts as trending."""

NO_CORRELATION_VARIANCE = 1e-20
VOLATILE_VARIANCE_RATIO = 3.0
VOLATILE_MINIMUM_VARIANCE = 1e-8
CHANGE_FROM_ZERO = 0.01
STEADY_VELOCITY = -1e-6
PROXIMITY_WEIGHT = 0.3
TIME_RISKS = ((10.0, 0.9), (20.0, 0.7), (50.0, 0.5), (100.0, 0.25))
"""Updates to collapse, at most → risk; a longer time is a risk of 0.1."""
REMOTE_RISK = 0.1
RATE_CHANGE = 0.2
RATE_FLOOR = 0.01

Series = Sequence[float]


def _mean(values: Series) -> float:
    return sum(values) / len(values)


def _variance(values: Series) -> float:
    mean = _mean(values)
    return _mean([_square(value - mean) for value in values])


def _square(value: float) -> float:
    # A product overflows to infinity, where a power would raise.
    return value * value


def _slope_weights(count: int) -> tuple[float, ...]:
    """What each of so many values adds to the slope of their least-squares line."""
    middle = (count - 1) / 2
    spread = sum((place - middle) ** 2 for place in range(count))
    return tuple((place - middle) / spread for place in range(count))


_SLOPE_WEIGHTS = {count: _slope_weights(count) for count in range(MINIMUM_VALUES, WINDOW + 1)}


def compute_entropy_velocity(entropy_history: Series) -> float:
    """Slope of a least-squares line through the last ten entropies, per update.

    0.0 with fewer than five values, with a non-finite one, or where the slope is too large for a
    float; negative means falling.
    """
    if len(entropy_history) < MINIMUM_VALUES:
        return 0.0
    values = list(entropy_history)[-WINDOW:]
    if not all(map(math.isfinite, values)):
        return 0.0
    first = values[0]  # a flat history has a slope of exactly 0
    slope = sum(map(mul, _SLOPE_WEIGHTS[len(values)], [value - first for value in values]))
    return slope if math.isfinite(slope) else 0.0


def compute_correlation(x_values: Series, y_values: Series) -> float:
    """Pearson's correlation of the last ten values of two histories, matched at their ends.

    0.0 with fewer than five pairs, without variance, or with a non-finite value.
    """
    count = min(len(x_values), len(y_values), WINDOW)
    if count < MINIMUM_VALUES:
        return 0.0
    x, y = list(x_values)[-count:], list(y_values)[-count:]
    if not all(map(math.isfinite, (*x, *y))):
        return 0.0
    x_mean, y_mean = sum(x) / count, sum(y) / count
    x, y = [v - x_mean for v in x], [v - y_mean for v in y]
    spread = sum(map(mul, x, x)) * sum(map(mul, y, y))
    if spread < NO_CORRELATION_VARIANCE or not math.isfinite(spread):
        return 0.0
    return float(sum(map(mul, x, y)) / spread**0.5)


def _time_risk(updates: float) -> float:
    return next((risk for limit, risk in TIME_RISKS if updates <= limit), REMOTE_RISK)


def compute_collapse_risk(
    entropy_history: Series,
    critical_threshold: float = 0.3,
    warning_threshold: float = 0.5,
    max_healthy_entropy: float = 1.39,
    previous_risk: float = 0.0,
    hysteresis: float = 0.08,
    velocity: float | None = None,
) -> float:
    """Risk of entropy collapse, 0.0 to 1.0, from how near and how fast the threshold comes.

    0.0 with fewer than five values or when the newest is not finite; 1.0 at or below the critical
    threshold. A change smaller than ``hysteresis`` leaves the previous risk, against flapping.
    ``velocity`` is the history's slope, where it was computed already.
    """
    if len(entropy_history) < MINIMUM_VALUES or not math.isfinite(entropy_history[-1]):
        return 0.0
    current = entropy_history[-1]
    if current <= critical_threshold:
        return 1.0
    distance = current - critical_threshold
    room = max_healthy_entropy - critical_threshold
    proximity = min(1.0, max(0.0, 1.0 - distance / room)) if room > 0 else 1.0
    near = proximity * PROXIMITY_WEIGHT
    if velocity is None:
        velocity = compute_entropy_velocity(entropy_history)
    if velocity >= STEADY_VELOCITY:
        risk = near
    else:
        soon = _time_risk(distance / -velocity)
        risk = 0.5 * soon + 0.5 * near if current < warning_threshold else 0.7 * soon + 0.3 * near
    if abs(risk - previous_risk) < hysteresis:
        return previous_risk
    return min(1.0, max(0.0, risk))


def detect_trend(values: Series, metric_name: str = "default", metric_type: str = "loss") -> str:
    """``improving``, ``stable``, ``volatile`` or ``warning``: the last window against the one
    before it, at most ten values each.

    ``metric_type`` "loss" means lower is better, anything else higher. Windows of fewer than three
    values are ``stable``.
    """
    window = min(WINDOW, len(values) // 2)
    if len(values) < MINIMUM_VALUES or window < 3:
        return "stable"
    numbers = list(values)
    recent, older = numbers[-window:], numbers[-2 * window : -window]
    if not all(map(math.isfinite, (*recent, *older))):
        return "warning"
    older_variance = _variance(older)
    if (
        older_variance > VOLATILE_MINIMUM_VARIANCE
        and _variance(recent) / older_variance > VOLATILE_VARIANCE_RATIO
    ):
        return "volatile"
    before = _mean(older)
    share = TREND_THRESHOLDS.get(metric_name, TREND_THRESHOLDS["default"])
    threshold = share * abs(before) if before != 0 else CHANGE_FROM_ZERO
    gain = _mean(recent) - before
    if metric_type == "loss":
        gain = -gain
    if gain >= threshold:
        return "improving"
    return "warning" if gain <= -threshold else "stable"


def trend_to_indicator(trend: str) -> tuple[str, str]:
    """One character and a style for a trend; unknown ones look stable."""
    return {
        "improving": ("^", "green"),
        "volatile": ("~", "yellow"),
        "warning": ("v", "red"),
    }.get(trend, ("-", "dim"))


def make_sparkline(values: Series, width: int = 8) -> str:
    """The last ``width`` values as block characters; what is not finite is a gap."""
    if not values or width <= 0:
        return "─" * max(0, width)
    blocks = "▁▂▃▄▅▆▇█"
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = high - low

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        if span == 0 or not math.isfinite(span):
            return blocks[len(blocks) // 2]
        return blocks[min(len(blocks) - 1, int((value - low) / span * len(blocks)))]

    return "".join(block(value) for value in shown)


def detect_rate_trend(history: Series) -> str:
    """``rising``, ``stable`` or ``falling``: the last five rates against the five before them.

    With fewer than ten the first five stand in for those; 20 % of change decide.
    """
    if len(history) < MINIMUM_VALUES:
        return "stable"
    numbers = list(history)
    older = numbers[-10:-5] if len(numbers) >= 10 else numbers[:5]
    before = _mean(older)
    change = _mean(numbers[-5:]) - before
    threshold = RATE_CHANGE * max(abs(before), RATE_FLOOR)
    if change > threshold:
        return "rising"
    return "falling" if change < -threshold else "stable"
