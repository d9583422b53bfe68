"""What the real aggregator loses: counts and distributions of events, kept beside the snapshot.

A counter survives what a gauge cannot: two events between two scrapes. What may be counted is
declared in `esper_exporter.state.counted`; an undeclared counter does not exist.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True, eq=False)
class HistogramRow:
    """Histograms with the same bounds that are observed together, one value each."""

    keys: tuple[HistogramKey, ...]


HELD_ROWS = 256
"""Rows of values that are held before they are put into their histograms."""

MAX_LABEL_SETS = 128
"""Label sets of one name; further ones are counted together as ``other``."""


class _Sets:
    """Bounds how many label sets a name has, so that the page cannot grow without limit."""

    def __init__(self) -> None:
        self._known: dict[object, set[Labels]] = {}

    def bounded(self, declared: Counter | Histogram, labels: Labels) -> Labels:
        known = self._known.setdefault(declared, set())
        if labels not in known:
            if len(known) >= MAX_LABEL_SETS:
                return ("other",) * len(labels)
            known.add(labels)
        return labels


@dataclass(slots=True, eq=False)
class _Count:
    """One count, and whether `Tallies.changes` has yet to report it."""

    value: float = 0.0
    changed: bool = True


@cache
def _start_keys(declared: tuple[Counter | Histogram, ...]) -> tuple[CounterKey, ...]:
    """The label sets of all counters that exist from the start."""
    counters = [counter for counter in declared if isinstance(counter, Counter)]
    return tuple(dict.fromkeys((each, labels) for each in counters for labels in each.start))


def _nothing() -> None:
    """Nothing is held."""


class Tallies:
    """Monotonic counts by counter and label values; remembers which ones changed.

    ``before_reading`` is called before the counts are read, to add what is held elsewhere.
    """

    def __init__(self, declared: Iterable[Counter | Histogram] = ()) -> None:
        self.before_reading: Callable[[], None] = _nothing
        start = _start_keys(tuple(declared))
        self._counts: dict[CounterKey, _Count] = {key: _Count() for key in start}
        self._changed: list[CounterKey] = list(start)
        self._sets = _Sets()

    @property
    def values(self) -> dict[CounterKey, float]:
        """Every count so far."""
        self.before_reading()
        return {key: count.value for key, count in self._counts.items()}

    def begin(self, counter: Counter, *labels: str) -> None:
        """Let a label set exist, at 0 if nothing was counted yet."""
        if (counter, labels) not in self._counts:
            self._begin((counter, labels))

    def _begin(self, key: CounterKey) -> _Count:
        count = self._counts[key] = _Count()
        self._changed.append(key)
        return count

    def forget(self, counter: Counter, *labels: str) -> None:
        """Let a label set no longer exist, unless something was counted."""
        key = (counter, labels)
        count = self._counts.get(key)
        if count is not None and count.value == 0.0:
            del self._counts[key]
            self._changed.append(key)

    def add(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` (finite and not negative; anything else would break a counter).

        A ``by`` of 0 is a report too: the counter exists from then on.
        """
        if not 0.0 <= by < math.inf:
            return
        key = (counter, labels)
        count = self._counts.get(key)
        if count is None:
            key = (counter, self._sets.bounded(counter, labels))
            count = self._counts.get(key) or self._begin(key)
        count.value += by
        if not count.changed:
            count.changed = True
            self._changed.append(key)

    def count(self, key: CounterKey) -> None:
        """Count one more of a label set from a fixed vocabulary: `add` without its checks."""
        count = self._counts.get(key)
        if count is None:
            count = self._begin(key)
        count.value += 1.0
        if not count.changed:
            count.changed = True
            self._changed.append(key)

    def add_to(self, key: CounterKey, by: float) -> None:
        """`add` to a label set from a fixed vocabulary."""
        count = self._counts.get(key)
        if count is None:
            self.add(key[0], *key[1], by=float(by))
        elif 0.0 < by < math.inf:
            count.value += by
            if not count.changed:
                count.changed = True
                self._changed.append(key)

    def get(self, counter: Counter, *labels: str) -> float:
        """The count so far; 0 for what was never counted."""
        self.before_reading()
        count = self._counts.get((counter, labels))
        return 0.0 if count is None else count.value

    def changes(self) -> dict[CounterKey, float | None]:
        """The counts that changed since the last call; None for those that no longer exist."""
        self.before_reading()
        changed, self._changed = self._changed, []
        found: dict[CounterKey, float | None] = {}
        for key in changed:
            count = self._counts.get(key)
            if count is None:
                found[key] = None
            else:
                count.changed = False
                found[key] = count.value
        return found


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

        One NaN would make the sum NaN for good, so a separate counter counts those.
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
    """Observed values by histogram and label values; remembers which ones changed.

    ``before_reading`` is called before they are read, to observe what is held elsewhere.
    """

    def __init__(self, declared: Iterable[Counter | Histogram] = ()) -> None:
        self.before_reading: Callable[[], None] = _nothing
        self._values: dict[HistogramKey, Distribution] = {}
        self._held: dict[HistogramRow, list[Sequence[float | None]]] = {}
        self.changed: dict[HistogramKey, None] = {}
        self._sets = _Sets()
        for histogram in declared:
            if isinstance(histogram, Histogram):
                for labels in histogram.start:
                    self.begin(histogram, *labels)

    @property
    def values(self) -> dict[HistogramKey, Distribution]:
        """Everything observed so far."""
        self.settle()
        return self._values

    def begin(self, histogram: Histogram, *labels: str) -> Distribution:
        """Let a label set exist; observing into what is returned goes unnoticed."""
        key = (histogram, labels)
        self.changed[key] = None
        return self._values.setdefault(key, Distribution(histogram.bounds))

    def hold(self, row: HistogramRow, values: Sequence[float | None]) -> None:
        """Observe a value for each histogram of a row, None for none, some time before `settle`."""
        held = self._held.get(row)
        if held is None:
            held = self._held[row] = []
        held.append(values)
        if len(held) >= HELD_ROWS:
            self._settle_rows()

    def settle(self) -> None:
        """Put the held values into their histograms."""
        self.before_reading()
        self._settle_rows()

    def _settle_rows(self) -> None:
        """All the held values of a row in one go."""
        for row, held in self._held.items():
            values = np.array(held, np.float64)  # None becomes NaN
            held.clear()
            if values.size:
                self._settle(row, values)

    def _settle(self, row: HistogramRow, values: NDArray[np.float64]) -> None:
        bounds = row.keys[0][0].bounds
        taken = np.isfinite(values)
        if bounds[0] >= 0:
            taken &= values >= 0
        width = len(bounds) + 1
        places = np.searchsorted(bounds, values) + width * np.arange(len(row.keys))
        counts = np.bincount(places[taken], minlength=width * len(row.keys))
        before = [0.0 if (old := self._values.get(key)) is None else old.total for key in row.keys]
        # One after the other: the sum must not depend on how many were held.
        totals = np.vstack((before, np.where(taken, values, 0.0))).cumsum(axis=0)[-1].tolist()
        observed = np.atleast_1d(taken.any(axis=0))
        for number, (histogram, labels) in enumerate(row.keys):
            if observed[number]:
                found = self.begin(histogram, *labels)
                new = counts[number * width : (number + 1) * width].tolist()
                found.counts = [one + more for one, more in zip(found.counts, new, strict=True)]
                found.total = totals[number]

    def observe_all(self, histogram: Histogram, values: Sequence[float]) -> None:
        """Observe many values of a histogram without labels."""
        if values:
            row = HistogramRow(((histogram, ()),))
            self._settle(row, np.array(values, np.float64).reshape(-1, 1))

    def observe(self, histogram: Histogram, value: float | None, *labels: str) -> bool:
        """Observe a value; False if it was missing or not finite."""
        if value is None:
            return False
        key = (histogram, labels)
        found = self._values.get(key)
        if found is None:
            key = (histogram, self._sets.bounded(histogram, labels))
            found = self._values.setdefault(key, Distribution(histogram.bounds))
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
