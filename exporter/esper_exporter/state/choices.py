"""What the policy decides: operations, choices of each of Tamiyo's eight heads, masks.

A decision counts in some twenty counters. Equal decisions are counted as one and spread over the
counters when somebody reads them: decisions outnumber scrapes by hundreds to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from esper_exporter.contract.analytics import AnalyticsSnapshotPayload
from esper_exporter.contract.vocabulary import (
    ALPHA_TARGETS,
    CHOICES_OF_HEAD,
    HEADS,
    OPS,
    OTHER,
    TEMPOS,
)
from esper_exporter.state import counted
from esper_exporter.state.counters import Tallies

MAX_DIFFERENT = 512
"""Different decisions that are kept apart before they are spread over the counters."""

_TARGETS = dict(zip((0.5, 0.7, 1.0), ALPHA_TARGETS, strict=True))
_CHOSEN = (
    *("slot_id", "blueprint_id", "style", "alpha_speed", "alpha_curve"),
    *("tempo_idx", "alpha_target"),
)
_chosen = attrgetter("action_success", *_CHOSEN, *(f"{head}_masked" for head in HEADS))
_SUCCESS = {None: "unknown", True: "true", False: "false"}


class DecisionCounts:
    """Decisions that were not spread over the counters yet."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Any, ...], int] = {}

    def add(self, tallies: Tallies, payload: AnalyticsSnapshotPayload, op: str) -> None:
        """Count a decision for an operation."""
        key = (op, *_chosen(payload))
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
            for head, choice in _choices(known_op, *rest[: len(_CHOSEN)]):
                known = CHOICES_OF_HEAD.get(head)
                named = choice if known is None or choice in known else OTHER
                tallies.add(counted.CHOICES, head, named, by=by)
            for head, masked in zip(HEADS, rest[len(_CHOSEN) :], strict=True):
                if masked is not None:
                    tallies.add(counted.MASKED_DECISIONS, head, by=by * masked)


def _choices(
    op: str,
    slot: str | None,
    blueprint: str | None,
    style: str | None,
    speed: str | None,
    curve: str | None,
    tempo: int | None,
    target: float | None,
) -> Iterator[tuple[str, str]]:
    """Each head's choice. A head that did not matter for the operation has none."""
    yield "op", op
    for head, choice in (
        *(("slot", slot), ("blueprint", blueprint), ("style", style)),
        *(("alpha_speed", speed), ("alpha_curve", curve)),
    ):
        if choice is not None:
            yield head, choice
    if tempo is not None:
        yield "tempo", TEMPOS[tempo] if 0 <= tempo < len(TEMPOS) else OTHER
    if target is not None:
        yield "alpha_target", _TARGETS.get(target, OTHER)
