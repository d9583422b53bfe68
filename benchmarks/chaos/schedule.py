"""When each fault begins: one after the other where there is time, else beside each other."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.chaos.faults import Fault

GAP_SECONDS = 30.0
"""Between the mending of a fault and the next fault, at least."""
TRIES = 10_000
PLACES = 100
"""Moments tried for one fault beside the others before all are placed anew."""


def schedule(faults: Sequence[Fault], seconds: float, seed: int) -> list[tuple[float, Fault]]:
    """The beginning of each fault, in seconds; the last is mended before ``seconds`` have passed.

    Raises:
        ValueError: There is too little time even if faults that touch different things overlap.
    """
    numbers = random.Random(seed)
    order = list(faults)
    spare = seconds - sum(fault.seconds + GAP_SECONDS for fault in order)
    for _ in range(TRIES):
        numbers.shuffle(order)
        if spare >= 0:
            places = _in_sequence(order, spare, numbers)
        else:
            places = _beside(order, seconds, numbers)
        if len(places) == len(order) and not _clash(places):
            return sorted(places, key=lambda place: place[0])
    raise ValueError(f"{seconds:.0f} s are too few for these faults")


def _in_sequence(
    order: Sequence[Fault], spare: float, numbers: random.Random
) -> list[tuple[float, Fault]]:
    """One after the other, the spare time between them."""
    gaps = [numbers.random() for _ in order]
    found, at = [], 0.0
    for fault, gap in zip(order, gaps, strict=True):
        at += spare * gap / sum(gaps)
        found.append((at, fault))
        at += fault.seconds + GAP_SECONDS
    return found


def _beside(
    order: Sequence[Fault], seconds: float, numbers: random.Random
) -> list[tuple[float, Fault]]:
    """Each at its own time, the long ones first; without those that found no room."""
    places: list[tuple[float, Fault]] = []
    for fault in sorted(order, key=lambda each: -each.seconds - each.rest):
        for _ in range(PLACES if fault.seconds <= seconds else 0):
            place = (numbers.uniform(0, seconds - fault.seconds), fault)
            if not _clash([place, *places]):
                places.append(place)
                break
    return places


def _clash(places: Sequence[tuple[float, Fault]]) -> bool:
    return any(
        (
            {*one.touches} & {*other.touches}
            or {*one.apart} & {*other.touches}
            or {*one.touches} & {*other.apart}
        )
        and start < then + other.seconds + other.rest
        and then < start + one.seconds + one.rest
        for number, (start, one) in enumerate(places)
        for then, other in places[:number]
    )
