"""Numbers and levels as the page's JSON spells them."""

from __future__ import annotations

import math
from datetime import datetime

from esper_exporter.health import Level

Json = dict[str, object]
Number = float | str | None

LEVELS = {Level.HEALTHY: "ok", Level.WARNING: "warn", Level.CRITICAL: "crit", Level.UNKNOWN: "none"}
"""A level's word in the JSON; the style sheet has a class of the same name."""


def number(value: float | None) -> Number:
    """A number for JSON, which has no NaN: ``NaN``, ``Inf``, ``-Inf`` as strings, None as null."""
    if value is None or math.isfinite(value):
        return value
    if value != value:
        return "NaN"
    return "Inf" if value > 0 else "-Inf"


def short(value: float | None, digits: int = 5) -> Number:
    """`number` with so many significant digits: for lines, where more are not seen."""
    found = number(value)
    return float(f"{found:.{digits}g}") if isinstance(found, float) else found


def unix(moment: datetime | None) -> float | None:
    """Unix seconds."""
    return None if moment is None else moment.timestamp()


def level_of(value: float | None, level: Level) -> str:
    """The level's word; NaN and Inf are critical on every scale."""
    if value is not None and not math.isfinite(value):
        return "crit"
    return LEVELS[level]
