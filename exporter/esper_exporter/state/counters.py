"""What the real aggregator loses: counts and distributions of events, kept beside the snapshot.

A counter survives what a gauge cannot: two events between two scrapes. What may be counted is
declared in `esper_exporter.state.counted`; an undeclared counter does not exist.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """A monotonic count: its metric's name, labels, and the label values known beforehand.

    Those exist at 0 from the start, unless the counter is ``measured``: then each exists from the
    first report on. ``of_run`` is false for what the exporter counts about itself.
    """

    name: str
    labels: Labels = ()
    known: tuple[Labels, ...] = ()
    measured: bool = False
    of_run: bool = True

    @property
    def start(self) -> tuple[Labels, ...]:
        """The label values that exist from the start."""
        return _start(self.labels, self.known, self.measured)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """A classic histogram: as `Counter`, with the upper bounds of its buckets, without ``+Inf``."""

    name: str
    bounds: tuple[float, ...]
    labels: Labels = ()
    known: tuple[Labels, ...] = ()
    measured: bool = False
    of_run: bool = True

    @property
    def start(self) -> tuple[Labels, ...]:
        """The label values that exist from the start."""
        return _start(self.labels, self.known, self.measured)


def _start(labels: Labels, known: tuple[Labels, ...], measured: bool) -> tuple[Labels, ...]:
    if measured:
        return ()
    return known if labels else ((),)


CounterKey = tuple[Counter, Labels]
HistogramKey = tuple[Histogram, Labels]

MAX_LABEL_SETS = 128
"""Label sets of one name; further ones are counted together as ``other``."""


class _Sets:
    """Bounds how many label sets a name has, so that no event can make the page grow for ever."""

    def __init__(self) -> None:
        self._known: dict[object, set[Labels]] = {}

    def bounded(self, declared: Counter | Histogram, labels: Labels) -> Labels:
        known = self._known.setdefault(declared, set())
        if labels not in known:
            if len(known) >= MAX_LABEL_SETS:
                return ("other",) * len(labels)
            known.add(labels)
        return labels


class Tallies:
    """Monotonic counts by counter and label values; remembers which ones changed."""

    def __init__(self, declared: Iterable[Counter | Histogram] = ()) -> None:
        self.values: dict[CounterKey, float] = {}
        self.changed: dict[CounterKey, None] = {}
        self._sets = _Sets()
        for counter in declared:
            if isinstance(counter, Counter):
                for labels in counter.start:
                    self.begin(counter, *labels)

    def begin(self, counter: Counter, *labels: str) -> None:
        """Let a label set exist, at 0 if nothing was counted yet."""
        key = (counter, labels)
        if key not in self.values:
            self.values[key] = 0.0
            self.changed[key] = None

    def forget(self, counter: Counter, *labels: str) -> None:
        """Let a label set no longer exist, unless something was counted."""
        key = (counter, labels)
        if self.values.get(key) == 0.0:
            del self.values[key]
            self.changed[key] = None

    def add(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` (finite and not negative; anything else would break a counter).

        A ``by`` of 0 is a report too: the counter exists from then on.
        """
        if not 0.0 <= by < math.inf:
            return
        key = (counter, labels)
        if key not in self.values:
            key = (counter, self._sets.bounded(counter, labels))
        self.values[key] = self.values.get(key, 0.0) + by
        self.changed[key] = None

    def get(self, counter: Counter, *labels: str) -> float:
        """The count so far; 0 for what was never counted."""
        return self.values.get((counter, labels), 0.0)


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
    """Observed values by histogram and label values; remembers which ones changed."""

    def __init__(self, declared: Iterable[Counter | Histogram] = ()) -> None:
        self.values: dict[HistogramKey, Distribution] = {}
        self.changed: dict[HistogramKey, None] = {}
        self._sets = _Sets()
        for histogram in declared:
            if isinstance(histogram, Histogram):
                for labels in histogram.start:
                    self.begin(histogram, *labels)

    def begin(self, histogram: Histogram, *labels: str) -> Distribution:
        """Let a label set exist; observing into what is returned goes unnoticed."""
        key = (histogram, labels)
        self.changed[key] = None
        return self.values.setdefault(key, Distribution(histogram.bounds))

    def observe(self, histogram: Histogram, value: float | None, *labels: str) -> bool:
        """Observe a value; False if it was missing or not finite."""
        if value is None:
            return False
        key = (histogram, labels)
        found = self.values.get(key)
        if found is None:
            key = (histogram, self._sets.bounded(histogram, labels))
            found = self.values.setdefault(key, Distribution(histogram.bounds))
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
