"""Every field that no metric shows, with the reason that its class gives beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec

from esper_exporter.contract.event_table import TYPES
from esper_exporter.state.snapshot import SanctumSnapshot


def unexported_fields() -> Iterator[tuple[str, str]]:
    """``Class.field`` and the reason, of the snapshot, the payloads and what they hold."""
    for kind in classes_with_metrics():
        for name, reason in unexported_of(kind).items():
            yield f"{kind.__name__}.{name}", reason


def classes_with_metrics() -> Iterator[type]:
    """The snapshot, the payloads, and the classes of their fields that are not left out whole."""
    waiting: list[type] = [SanctumSnapshot, *(event.payload for event in TYPES.values())]
    seen: set[type] = set()
    for kind in waiting:
        if kind in seen:
            continue
        seen.add(kind)
        yield kind
        left_out = unexported_of(kind)
        for name, hint in get_type_hints(kind).items():
            if name not in left_out:
                waiting += _classes_in(hint)


def reasons_of(kind: type) -> dict[str, list[str]]:
    """Why no metric shows some fields of a class, each reason with its fields."""
    return {reason: names.split() for reason, names in getattr(kind, "unexported", {}).items()}


def unexported_of(kind: type) -> dict[str, str]:
    """The fields of a class that no metric shows, each with the reason."""
    return {name: reason for reason, names in reasons_of(kind).items() for name in names}


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and (
        dataclasses.is_dataclass(hint) or issubclass(hint, msgspec.Struct)
    ):
        yield hint
    for inner in get_args(hint):
        yield from _classes_in(inner)
