"""Every threshold, once: what is healthy, what warns, what is critical.

The dashboards, the alerts and the pages use these. Sources: the ActionHeadsPanel document (per-head
thresholds, head states, footer, decisions) and the thresholds in use in the real system. Every
function is total: what was not measured (None) or is NaN is ``UNKNOWN``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

Number = float | None


class Level(Enum):
    """How something is."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


# Per head (ActionHeadsPanel)
HEAD_ENTROPY_WARNING: Final = 0.5
HEAD_ENTROPY_CRITICAL: Final = 0.25
HEAD_GRAD_NORM_DEAD: Final = 0.01
HEAD_GRAD_NORM_LOW: Final = 0.1
HEAD_GRAD_NORM_HIGH: Final = 2.0
HEAD_GRAD_NORM_EXPLODING: Final = 5.0
HEAD_RATIO_WARNING: Final = (0.8, 1.2)
HEAD_RATIO_CRITICAL: Final = (0.5, 1.5)
GRAD_TREND_STABLE: Final = 0.01
STATE_ENTROPY_COLLAPSED: Final = 0.1
STATE_ENTROPY_CONFUSED: Final = 0.9
STATE_ENTROPY_HEALTHY: Final = (0.3, 0.7)

# Gradient-flow footer and decisions (ActionHeadsPanel)
GRADIENT_CV_WARNING: Final = 0.5
GRADIENT_CV_CRITICAL: Final = 2.0
DECISION_MAX_AGE_SECONDS: Final = 30.0
DECISION_AGE_SHARES: Final = (0.4, 0.7, 0.9)

# The policy as a whole (thresholds in use)
GRAD_NORM_WARNING: Final = 5.0
GRAD_NORM_CRITICAL: Final = 10.0
AMP_LOSS_SCALE_FLOOR: Final = 1.0
"""At this loss scale nothing is magnified, so that an overflow is the gradient's own."""
AMP_OVERFLOWS_IN_A_ROW: Final = 10
"""GradScaler finds its scale within a few updates; this many overflows in a row are a fault."""
EXPLOSION_FACTOR: Final = 100.0
"""A gradient explodes when its norm is this many times the trainer's ``max_grad_norm``. A healthy
CartPole run that clips to 0.5 reaches 37 before clipping, esper's own runs 65 with a limit of 5."""
GRAD_NORM_ENORMOUS: Final = 1000.0
EXPLOSION_OF_MEDIANS: Final = 10.0
SPIKE_OF_MEDIANS: Final = 100.0
SPIKE_UPDATES: Final = 20
"""Beyond a run's own median, what explodes (or is enormous), and what a single spike is."""
RATIO_MAX_WARNING: Final = 1.5
RATIO_MAX_CRITICAL: Final = 2.0
RATIO_MIN_WARNING: Final = 0.5
RATIO_MIN_CRITICAL: Final = 0.3
CLIP_FRACTION_WARNING: Final = 0.25
CLIP_FRACTION_CRITICAL: Final = 0.30
KL_WARNING: Final = 0.015
KL_CRITICAL: Final = 0.03
EXPLAINED_VARIANCE_WARNING: Final = 0.3
EXPLAINED_VARIANCE_CRITICAL: Final = 0.0
VALUE_CORRELATION_WARNING: Final = 0.6
VALUE_CORRELATION_CRITICAL: Final = 0.3
LOG_PROB_WARNING: Final = -50.0
LOG_PROB_CRITICAL: Final = -100.0
COLLAPSE_RISK_CRITICAL: Final = 0.7
WAIT_SHARE_WARNING: Final = 0.7
LOW_RETURN_VARIANCE_WARNING: Final = 0.20
FRAGMENTATION_WARNING: Final = 0.3
MEMORY_CRITICAL: Final = 0.90
STALE_SECONDS: Final = 5.0
"""The terminal's own measure. A healthy run is silent for up to 6 s: no threshold for an alert."""

TELEMETRY_STALE_INTERVALS: Final = 3
"""A run is stale after this many of its update intervals without an event …"""
TELEMETRY_STALE_SECONDS: Final = 60
"""… and for a minute at least."""
TELEMETRY_STALE_FIRST_UPDATE_SECONDS: Final = 600
"""Before the first update, which may have to compile."""

# Alerts: how much of what, within a rule's window, notifies a person
ALERT_UPDATES: Final = 5
"""Fewer policy updates than this in a window prove nothing."""
EXPLODING_UPDATES_SHARE: Final = 0.05
VANISHING_UPDATES_SHARE: Final = 0.5
HEAD_OUT_OF_RANGE_SHARE: Final = 0.75
"""A head that has a choice in few steps, or is untrained, is out of range in up to half of them."""
EARLY_STOP_SHARE: Final = 0.5
VALUE_SPREAD_COLLAPSED: Final = 0.1
VALUE_WARM_UP_UPDATES: Final = 100
"""An untrained critic's estimates correlate with nothing: not before so many updates."""
WAIT_SHARE_ACTIONS: Final = 100
ROLLBACKS: Final = 3
ROLLBACKS_PER_EPISODE: Final = 0.2
"""Fewer are the governor's ordinary work."""
NO_IMPROVEMENT_BATCHES: Final = 20
ACCURACY_DROP: Final = 0.1
ENVS_DEGRADED_SHARE: Final = 0.5
SCRAPE_SLOW_SECONDS: Final = 1.0
CLOCK_SKEW_SECONDS: Final = 30.0
GPU_HOT_CELSIUS: Final = 85
GPU_THROTTLED_SHARE: Final = 0.1
GPU_IDLE_SHARE: Final = 0.05
GPU_SILENT_SECONDS: Final = 120
DISK_FREE_SHARE: Final = 0.1
RANK_SILENT_STEPS: Final = 5
"""A rank is silent when it has not reported for this many steps of the others …"""
RANK_SILENT_SECONDS: Final = 15
"""… and for so long at least."""
RANK_SLOW_FACTOR: Final = 1.25

# An environment's status (Sanctum schema)
ENV_HYSTERESIS_EPOCHS: Final = 3
ENV_STALL_EPOCHS: Final = 10
ENV_DEGRADED_DROP_PERCENT: Final = 1.0
ENV_EXCELLENT_ACCURACY_PERCENT: Final = 80.0


class HeadState(Enum):
    """State of an action head, in the order in which the panel's table is read."""

    DEAD = "dead"
    EXPLODING = "exploding"
    DETERMINISTIC = "deterministic"
    COLLAPSED = "collapsed"
    CONFUSED = "confused"
    HEALTHY = "healthy"
    INDETERMINATE = "indeterminate"
    UNKNOWN = "unknown"


HEAD_STATES: Final = tuple(state.value for state in HeadState)


def _unknown(value: Number) -> bool:
    return value is None or value != value


def _falling(value: Number, warning: float, critical: float) -> Level:
    """Low is bad: at or below a threshold counts as that level, and infinity is no good value."""
    if value is None or value != value:
        return Level.UNKNOWN
    if value <= critical or value == float("inf"):
        return Level.CRITICAL
    return Level.WARNING if value <= warning else Level.HEALTHY


def _rising(value: Number, warning: float, critical: float) -> Level:
    """High is bad: above a threshold counts as that level."""
    if value is None or value != value:
        return Level.UNKNOWN
    if value > critical:
        return Level.CRITICAL
    return Level.WARNING if value > warning else Level.HEALTHY


def entropy_level(share: Number) -> Level:
    """A head's entropy as a share of its maximum."""
    return _falling(share, HEAD_ENTROPY_WARNING, HEAD_ENTROPY_CRITICAL)


def head_gradient_level(norm: Number) -> Level:
    """A head's gradient norm: healthy from 0.1 to 2."""
    if norm is None or norm != norm:
        return Level.UNKNOWN
    if norm < HEAD_GRAD_NORM_DEAD or norm > HEAD_GRAD_NORM_EXPLODING:
        return Level.CRITICAL
    if norm < HEAD_GRAD_NORM_LOW or norm > HEAD_GRAD_NORM_HIGH:
        return Level.WARNING
    return Level.HEALTHY


def gradient_trend(norm: Number, previous: Number) -> tuple[str, Level]:
    """An arrow, and whether that way is good news.

    Rising is good from below and bad from above; within the healthy range it means nothing, which
    is ``UNKNOWN`` (drawn dim).
    """
    if norm is None or previous is None or norm != norm or previous != previous:
        return ("", Level.UNKNOWN)
    if norm == previous or abs(norm - previous) < GRAD_TREND_STABLE:
        return ("→", Level.UNKNOWN)
    rising = norm > previous
    arrow = "↗" if rising else "↘"
    if norm < HEAD_GRAD_NORM_LOW:
        return (arrow, Level.HEALTHY if rising else Level.CRITICAL)
    if norm > HEAD_GRAD_NORM_HIGH:
        return (arrow, Level.CRITICAL if rising else Level.HEALTHY)
    return (arrow, Level.UNKNOWN)


def head_ratio_level(ratio: Number) -> Level:
    """A head's probability ratio: healthy within PPO's clip range."""
    if ratio is None or ratio != ratio:
        return Level.UNKNOWN
    if HEAD_RATIO_WARNING[0] <= ratio <= HEAD_RATIO_WARNING[1]:
        return Level.HEALTHY
    if HEAD_RATIO_CRITICAL[0] <= ratio <= HEAD_RATIO_CRITICAL[1]:
        return Level.WARNING
    return Level.CRITICAL


def classify_head(head: str, grad_norm: Number, entropy: Number, n_slots: int) -> HeadState:
    """The state of a head by the panel's table: the first row that fits.

    ``entropy`` is a share of the maximum. A slot head with one slot cannot choose, so its low
    entropy is expected.
    """
    if grad_norm is None or entropy is None or _unknown(grad_norm) or _unknown(entropy):
        return HeadState.UNKNOWN
    low = entropy < STATE_ENTROPY_COLLAPSED
    if grad_norm < HEAD_GRAD_NORM_DEAD and low:
        return HeadState.DEAD
    if grad_norm > HEAD_GRAD_NORM_EXPLODING:
        return HeadState.EXPLODING
    if low:
        single = head == "slot" and n_slots == 1
        return HeadState.DETERMINISTIC if single else HeadState.COLLAPSED
    if not HEAD_GRAD_NORM_LOW <= grad_norm <= HEAD_GRAD_NORM_HIGH:
        return HeadState.INDETERMINATE
    if entropy > STATE_ENTROPY_CONFUSED:
        return HeadState.CONFUSED
    if STATE_ENTROPY_HEALTHY[0] <= entropy <= STATE_ENTROPY_HEALTHY[1]:
        return HeadState.HEALTHY
    return HeadState.INDETERMINATE


def normalized_entropy_where_choice(entropy: Number, learnable_fraction: Number) -> Number:
    """A head's entropy where it had a choice, from the mean over all steps.

    Steps with one legal choice have entropy 0 and pull the mean down; dividing by the share of
    steps with a choice takes them out. None when it had none, or when that share is not known.
    """
    if entropy is None or learnable_fraction is None or not learnable_fraction > 0:
        return None
    return entropy / learnable_fraction


def gradient_cv_level(cv: Number) -> Level:
    """Coefficient of variation of the gradients: stable below 0.5, bad from 2."""
    if cv is None or cv != cv:
        return Level.UNKNOWN
    if cv >= GRADIENT_CV_CRITICAL:
        return Level.CRITICAL
    return Level.WARNING if cv >= GRADIENT_CV_WARNING else Level.HEALTHY


def count_level(count: Number) -> Level:
    """Dead or exploding layers, NaN or Inf gradients: any is too many."""
    if count is None or count != count:
        return Level.UNKNOWN
    return Level.CRITICAL if count > 0 else Level.HEALTHY


def grad_norm_level(norm: Number) -> Level:
    """The policy's gradient norm before clipping."""
    return _rising(norm, GRAD_NORM_WARNING, GRAD_NORM_CRITICAL)


def clip_fraction_level(share: Number) -> Level:
    """Share of samples that PPO clipped."""
    return _rising(share, CLIP_FRACTION_WARNING, CLIP_FRACTION_CRITICAL)


def kl_level(kl: Number) -> Level:
    """Mean KL divergence in nats."""
    return _rising(kl, KL_WARNING, KL_CRITICAL)


def explained_variance_level(value: Number) -> Level:
    """Explained variance: a diagnostic, never a reason to alert."""
    return _falling(value, EXPLAINED_VARIANCE_WARNING, EXPLAINED_VARIANCE_CRITICAL)


def memory_level(share: Number) -> Level:
    """Share of a memory that is in use: above 90 % is an alarm."""
    return _rising(share, MEMORY_CRITICAL, MEMORY_CRITICAL)
