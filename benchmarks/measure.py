"""How things are measured: interleaved rounds, medians of rounds, the ratio of each round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Result:
    """One line of the table. ``floor`` is the ratio (or, with no ``theirs``, the limit) wanted;
    ``more`` says whether a larger ratio is better."""

    name: str
    ours: float
    theirs: float | None
    ratio: float | None
    unit: str
    floor: float | None = None
    more: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        value = self.ours if self.ratio is None else self.ratio
        if self.floor is None:
            return None
        return value >= self.floor if self.more else value <= self.floor


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """CPU time of this process for one call, over ``times`` calls."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    floor: float,
    *,
    rounds: int,
    ours_times: int = 1,
    note: str = "",
) -> Result:
    """How many times more CPU theirs takes than ours: one of each a round, in turn."""
    ours()
    theirs()
    pairs = []
    for number in range(rounds):
        if number % 2:
            their_time = cpu_seconds(theirs)
            our_time = cpu_seconds(ours, ours_times)
        else:
            our_time = cpu_seconds(ours, ours_times)
            their_time = cpu_seconds(theirs)
        pairs.append((our_time, their_time))
    return Result(
        name,
        median(one for one, _ in pairs),
        median(other for _, other in pairs),
        median(other / one for one, other in pairs if one > 0),
        "s",
        floor,
        note=note,
    )
