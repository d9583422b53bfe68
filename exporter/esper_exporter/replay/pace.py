"""Recorded time: compute when a recorded event is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.rejection import Rejected
from esper_exporter.replay.stop import Waiter

_JITTER_SECONDS = 5.0
"""Events of one run arrive out of order by less than this; a larger step back is another run."""


Recorded = bytes | dict[str, Any]
"""A line of a recording, or the event on it where the line was parsed already."""

Feed = Callable[[Recorded], object]


def parsed(line: bytes) -> Recorded:
    """The event on a line; the line itself where it is no JSON object."""
    try:
        return parse_line(line)
    except Rejected:
        return line


def feed_into(emit: Callable[[object], object], emit_line: Callable[[bytes], object]) -> Feed:
    """Feeds lines that were parsed as events, and others as the lines that they are."""

    def feed(recorded: Recorded) -> object:
        return emit_line(recorded) if isinstance(recorded, bytes) else emit(recorded)

    return feed


def event_time(line: Recorded) -> float | None:
    """The time of a recorded event in Unix seconds; None where it has none."""
    event = parsed(line) if isinstance(line, bytes) else line
    if isinstance(event, bytes):
        return None
    recorded = event.get("timestamp")
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

    def hold(self, event: Recorded) -> bool:
        """Wait until the event is due; return whether to stop instead."""
        recorded = event_time(event)
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
