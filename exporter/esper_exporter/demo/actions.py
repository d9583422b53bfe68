"""The factored action: eight heads, which heads an operation uses, and what is legal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esper_exporter.contract.vocabulary import (
    ALPHA_CURVES,
    ALPHA_SPEEDS,
    ALPHA_TARGETS,
    BLUEPRINTS,
    OPS,
    STYLES,
    TEMPOS,
)
from esper_exporter.demo.seeds import LIVE, Slot

MATTERS: dict[str, frozenset[str]] = {
    "op": frozenset(OPS),
    "slot": frozenset(OPS) - {"WAIT"},
    "blueprint": frozenset({"GERMINATE"}),
    "style": frozenset({"GERMINATE"}),
    "tempo": frozenset({"GERMINATE"}),
    "alpha_target": frozenset({"GERMINATE", "SET_ALPHA_TARGET"}),
    "alpha_speed": frozenset({"SET_ALPHA_TARGET", "PRUNE"}),
    "alpha_curve": frozenset({"SET_ALPHA_TARGET", "PRUNE"}),
}
"""Head → operations that use its choice."""


def choices(slot_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Head → what it chooses from, ``op`` first because the others follow it."""
    return {
        "op": OPS,
        "slot": tuple(slot_ids),
        "blueprint": BLUEPRINTS,
        "style": STYLES,
        "tempo": TEMPOS,
        "alpha_target": ALPHA_TARGETS,
        "alpha_speed": ALPHA_SPEEDS,
        "alpha_curve": ALPHA_CURVES,
    }


@dataclass(frozen=True, slots=True)
class Action:
    """One choice of every head, by name."""

    op: str
    slot: str
    blueprint: str
    style: str
    tempo: str
    alpha_target: str
    alpha_speed: str
    alpha_curve: str


def legal_slots(op: str, slots: Sequence[Slot], may_germinate: bool) -> tuple[bool, ...]:
    """The slots in which an operation is possible; WAIT needs no slot and fits all."""
    if op == "WAIT":
        return (True,) * len(slots)
    if op == "GERMINATE":
        return tuple(may_germinate and slot.stage == "DORMANT" for slot in slots)
    if op == "FOSSILIZE":
        return tuple(slot.stage == "HOLDING" and not _fading(slot) for slot in slots)
    if op == "SET_ALPHA_TARGET":
        return tuple(slot.stage in ("BLENDING", "HOLDING") and not _fading(slot) for slot in slots)
    if op == "ADVANCE":
        return tuple(slot.stage in LIVE - {"HOLDING"} and not _fading(slot) for slot in slots)
    return tuple(slot.stage in LIVE and not _fading(slot) for slot in slots)


def _fading(slot: Slot) -> bool:
    return slot.seed is not None and slot.seed.fading
