"""What the policy decides: operations, choices of each of Tamiyo's eight heads, masks.

A decision counts in some twenty counters. Equal decisions are counted as one and spread over the
counters when they are read: decisions outnumber scrapes by hundreds to one.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import astuple

from esper_exporter.contract.analytics import AnalyticsSnapshotPayload
from esper_exporter.contract.vocabulary import (
    ALPHA_TARGETS,
    CHOICES_OF_HEAD,
    CHOSEN_IN,
    HEADS,
    OPS,
    OTHER,
)
from esper_exporter.state import counted
from esper_exporter.state.counters import Tallies

MAX_DIFFERENT = 512
"""Different decisions that are kept apart before they are spread over the counters."""

_TARGETS = dict(zip((0.5, 0.7, 1.0), ALPHA_TARGETS, strict=True))
_FACTORS = tuple(head for head in HEADS if head != "op")
_FIELDS = AnalyticsSnapshotPayload.__struct_fields__
# From ``astuple`` of a decision, which costs less than as many attributes.
_chosen = itemgetter(
    _FIELDS.index("action_success"),
    *(_FIELDS.index(CHOSEN_IN[head]) for head in _FACTORS),
    *(_FIELDS.index(f"{head}_masked") for head in HEADS),
)
_factors = attrgetter(*(CHOSEN_IN[head] for head in _FACTORS))
_SUCCESS = {None: "unknown", True: "true", False: "false"}


class DecisionCounts:
    """Decisions that were not spread over the counters yet."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Any, ...], int] = {}

    def add(self, tallies: Tallies, payload: AnalyticsSnapshotPayload, op: str) -> None:
        """Count a decision for an operation."""
        key = (op, *_chosen(astuple(payload)))
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1
        if len(counts) > MAX_DIFFERENT:
            self.settle(tallies)

    def settle(self, tallies: Tallies) -> None:
        """Spread the decisions over the counters."""
        counts, self._counts = self._counts, {}
        for (op, success, *rest), times in counts.items():
            by = float(times)
            known_op = op if op in OPS else OTHER
            tallies.add(counted.ACTIONS, known_op, _SUCCESS[success], by=by)
            tallies.add(counted.DECISIONS, by=by)
            tallies.add(counted.CHOICES, "op", known_op, by=by)
            for head, value in zip(_FACTORS, rest, strict=False):
                choice = _spelled(head, value)
                if choice is None:
                    continue
                known = CHOICES_OF_HEAD.get(head)
                named = choice if known is None or choice in known else OTHER
                tallies.add(counted.CHOICES, head, named, by=by)
            for head, masked in zip(HEADS, rest[len(_FACTORS) :], strict=True):
                if masked is not None:
                    tallies.add(counted.MASKED_DECISIONS, head, by=by * masked)


def choices_of(payload: AnalyticsSnapshotPayload) -> dict[str, str]:
    """What each head but the operation's chose; a head that did not matter is not in it."""
    values = zip(_FACTORS, _factors(payload), strict=True)
    return {head: choice for head, value in values if (choice := _spelled(head, value)) is not None}


def _spelled(head: str, value: str | float | None) -> str | None:
    """A choice as the vocabulary spells it; decisions carry a tempo's place and an alpha."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        known = CHOICES_OF_HEAD[head]
        return known[value] if 0 <= value < len(known) else OTHER
    return _TARGETS.get(value, OTHER)
