"""What the real aggregator loses: counts and distributions of events, kept beside the snapshot.

A counter survives what a gauge cannot: two events between two scrapes. Names here are the
catalogue's metric names, so that a count and the family it becomes are one word.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

Key = tuple[str, tuple[str, ...]]


MAX_LABEL_SETS = 128
"""Label sets of one name; further ones are counted together as ``other``."""


class _Sets:
    """Bounds how many label sets a name has, so that no event can make the page grow for ever."""

    def __init__(self) -> None:
        self._known: dict[str, set[tuple[str, ...]]] = {}

    def key(self, name: str, labels: tuple[str, ...]) -> Key:
        known = self._known.setdefault(name, set())
        if labels not in known:
            if len(known) >= MAX_LABEL_SETS:
                return (name, ("other",) * len(labels))
            known.add(labels)
        return (name, labels)


class Tallies:
    """Monotonic counters by metric name and label values; remembers which ones changed."""

    def __init__(self) -> None:
        self.values: dict[Key, float] = {}
        self.changed: dict[Key, None] = {}
        self._sets = _Sets()

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` (finite and not negative; anything else would break a counter)."""
        if not 0.0 <= by < math.inf:
            return
        key = (name, labels)
        if key not in self.values:
            key = self._sets.key(name, labels)
        self.values[key] = self.values.get(key, 0.0) + by
        self.changed[key] = None

    def get(self, name: str, *labels: str) -> float:
        """The count so far; 0 for what was never counted."""
        return self.values.get((name, labels), 0.0)


class Distribution:
    """A classic histogram: counts per bucket (last: +Inf), sum and count of finite values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> bool:
        """Take one value in; False, and nothing taken, if it is not finite, or negative where
        the bounds say that it cannot be.

        One NaN would make the sum NaN for ever, so those are for a counter of their own.
        """
        if not math.isfinite(value) or value < 0 <= self.bounds[0]:
            return False
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        return True

    def cells(self) -> list[float]:
        """Cumulative buckets, sum, count: the order of a histogram's columns.

        With a negative bound the values may be negative, and there is no sum and no count.
        """
        cumulative: list[float] = []
        seen = 0
        for count in self.counts:
            seen += count
            cumulative.append(float(seen))
        if self.bounds[0] < 0:
            return cumulative
        return [*cumulative, self.total, float(seen)]


class Distributions:
    """Histograms by metric name and label values; remembers which ones changed."""

    def __init__(self, bounds: dict[str, tuple[float, ...]]) -> None:
        self._bounds = bounds
        self.values: dict[Key, Distribution] = {}
        self.changed: dict[Key, None] = {}
        self._sets = _Sets()

    def begin(self, name: str, *labels: str) -> Distribution:
        """A histogram to observe into directly; its owner knows that it changes."""
        return self.values.setdefault((name, labels), Distribution(self._bounds[name]))

    def observe(self, name: str, value: float | None, *labels: str) -> bool:
        """Observe a value; False if it was missing or not finite."""
        if value is None:
            return False
        key = (name, labels)
        found = self.values.get(key)
        if found is None:
            key = self._sets.key(name, labels)
            found = self.values.setdefault(key, Distribution(self._bounds[name]))
        if not found.observe(value):
            return False
        self.changed[key] = None
        return True


class WindowMaximum:
    """The largest value of the last ``seconds``, by the times of the values themselves."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._falling: deque[tuple[float, float]] = deque()

    def add(self, time: float, value: float) -> float | None:
        """Take a value in and return the window's maximum; NaN is left out."""
        if value == value:
            while self._falling and self._falling[-1][1] <= value:
                self._falling.pop()
            self._falling.append((time, value))
        while self._falling and self._falling[0][0] <= time - self._seconds:
            self._falling.popleft()
        return self._falling[0][1] if self._falling else None
