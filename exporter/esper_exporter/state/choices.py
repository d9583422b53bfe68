"""What the policy chooses: a count for each choice of each of Tamiyo's eight heads."""

from __future__ import annotations

from collections.abc import Iterator

from esper_exporter.contract.analytics import AnalyticsSnapshotPayload
from esper_exporter.contract.vocabulary import (
    ALPHA_TARGETS,
    CHOICES_OF_HEAD,
    OTHER,
    TEMPOS,
)
from esper_exporter.state import counted
from esper_exporter.state.counters import Tallies

_TARGETS = dict(zip((0.5, 0.7, 1.0), ALPHA_TARGETS, strict=True))


def count_choices(tallies: Tallies, payload: AnalyticsSnapshotPayload, op: str) -> None:
    """Count one decision's choices. A head that did not matter for the operation has none."""
    for head, choice in _choices(payload, op):
        known = CHOICES_OF_HEAD.get(head)
        tallies.add(counted.CHOICES, head, choice if known is None or choice in known else OTHER)


def _choices(payload: AnalyticsSnapshotPayload, op: str) -> Iterator[tuple[str, str]]:
    yield "op", op
    for head, choice in (
        ("slot", payload.slot_id),
        ("blueprint", payload.blueprint_id),
        ("style", payload.style),
        ("alpha_speed", payload.alpha_speed),
        ("alpha_curve", payload.alpha_curve),
    ):
        if choice is not None:
            yield head, choice
    tempo = payload.tempo_idx
    if tempo is not None:
        yield "tempo", TEMPOS[tempo] if 0 <= tempo < len(TEMPOS) else OTHER
    if payload.alpha_target is not None:
        yield "alpha_target", _TARGETS.get(payload.alpha_target, OTHER)
