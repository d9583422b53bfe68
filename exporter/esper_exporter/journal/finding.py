"""One finding: something that went wrong in a run, and the limits that make it one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from esper_exporter import health
from esper_exporter.journal.record import Update

EXPLODING_TIMES = 20.0
"""A gradient norm explodes at so many medians of earlier updates, above the critical norm."""

EXPLODING_ALWAYS = 1_000.0

RATIO_EXPLODED = 5.0

KL_AT_ONCE = 10 * health.KL_CRITICAL

STREAK = 3

HISTORY = 3
"""Earlier updates that make a history."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that went wrong, and when it first appeared."""

    cause: str
    number: int | None
    time: datetime | None
    seq: int
    detail: str
    head: str | None = None
    layer: str | None = None
    env: int | None = None
    inferred: bool = False
    """Not reported: concluded from missing events."""
    ends_run: bool = False


def norm_of(update: Update) -> float | None:
    """The gradient norm before clipping where it is known, else the trainer's."""
    for name in ("pre_clip_grad_norm", "grad_norm"):
        value = update.values.get(name)
        if isinstance(value, int | float) and value:
            return float(value)
    return None


def real_of(values: Any, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
