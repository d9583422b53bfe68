"""Recorded time: compute when a recorded event is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.rejection import Rejected
from esper_exporter.replay.stop import Waiter

_JITTER_SECONDS = 5.0
"""Events of one run arrive out of order by less than this; a larger step back is another run."""


def event_time(line: bytes) -> float | None:
    """The time of a recorded event in Unix seconds; None where the line has none."""
    try:
        recorded = parse_line(line).get("timestamp")
    except Rejected:
        return None
    if isinstance(recorded, str):
        try:
            moment = datetime.fromisoformat(recorded)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(recorded, int | float) and not isinstance(recorded, bool):
        try:
            seconds = float(recorded)
        except OverflowError:
            return None
        return seconds if math.isfinite(seconds) else None
    return None


class Pace:
    """Delays events until they are due; gaps last as long as recorded, divided by ``speed``.

    The first event is due at once, and so is one recorded before its predecessor. When time goes
    back by more than a few seconds, another run begins and resets the clock.
    """

    def __init__(
        self, speed: float, waiter: Waiter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._speed = speed
        self._waiter = waiter
        self._clock = clock
        self._began: tuple[float, float] | None = None
        self._latest = -math.inf

    def hold(self, line: bytes) -> bool:
        """Wait until the line is due; return whether to stop instead."""
        recorded = event_time(line)
        if recorded is None:
            return False
        now = self._clock()
        if self._began is None or recorded < self._latest - _JITTER_SECONDS:
            self._began = (recorded, now)
            self._latest = recorded
        self._latest = max(self._latest, recorded)
        first, start = self._began
        due = start + (recorded - first) / self._speed
        while (left := due - self._clock()) > 0:
            if self._waiter.wait(left):
                return True
        return False
