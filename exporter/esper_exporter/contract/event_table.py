"""The one table of events, from the rows that stand below the payloads of each domain.

A new event is a payload class with its row in ``EVENTS`` of its domain, and a function in the state
that applies it. A row that lacks something is an error when the table, or the state, is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain

import msgspec

from esper_exporter.contract import analytics, infra, kasmina, simic, tamiyo, tolaria
from esper_exporter.contract.event_type import EventType


class IncompleteEventType(Exception):
    """A row of the table lacks something; the message says which row and what."""


def build(rows: Iterable[EventType]) -> Mapping[str, EventType]:
    """The table by every name. Raises IncompleteEventType."""
    table: dict[str, EventType] = {}
    for row in rows:
        if not (isinstance(row.payload, type) and issubclass(row.payload, msgspec.Struct)):
            raise IncompleteEventType(f"{row.name} has no payload class (a msgspec.Struct)")
        if row.apply.count(".") != 1:
            raise IncompleteEventType(f"{row.name} does not say who applies it (module.function)")
        unknown = set(row.identity) - set(row.payload.__struct_fields__)
        if unknown:
            raise IncompleteEventType(
                f"{row.name} is recognised by {sorted(unknown)}, which {row.payload.__name__} lacks"
            )
        if row.aliases and not row.identity:
            raise IncompleteEventType(f"{row.name} has aliases and no identity to recognise them")
        for name in row.names:
            if name in table:
                raise IncompleteEventType(f"{name} is in the table of events twice")
            table[name] = row
    return table


BY_NAME: Mapping[str, EventType] = build(
    chain(
        simic.EVENTS, tamiyo.EVENTS, tolaria.EVENTS, kasmina.EVENTS, analytics.EVENTS, infra.EVENTS
    )
)
"""Event types by every name that they come under."""


def _prepare(payloads: Iterable[type[msgspec.Struct]]) -> None:
    """Let msgspec work out every payload class here, while one thread imports this.

    It does so at a class' first conversion, and a second thread that converts into the same class
    meanwhile ends the process with SIGSEGV (msgspec 0.22).
    """
    for payload in payloads:
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, payload)


TYPES: Mapping[str, EventType] = {row.name: row for row in BY_NAME.values()}
"""Event types by their present name."""

_prepare(row.payload for row in TYPES.values())

ALIASES: Mapping[str, str] = {alias: row.name for row in TYPES.values() for alias in row.aliases}
"""Older name → present name."""


def canonical(name: str) -> str:
    """The present name of an event type, from any of its names."""
    return ALIASES.get(name, name)
