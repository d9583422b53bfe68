"""Events for the tests of the border: recorded ones, as JSON and as live objects."""

from __future__ import annotations

import copy
from dataclasses import make_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import SimpleNamespace
from typing import Any

from esper_exporter.contract.jsonlines import parse_line
from support.recordings import NAMES, telemetry_lines

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return NOW


@cache
def recorded() -> dict[str, dict[str, Any]]:
    """The first event of every type, analytics by kind as ``ANALYTICS_SNAPSHOT:kind``."""
    first: dict[str, dict[str, Any]] = {}
    for run in NAMES:
        for line in telemetry_lines(run):
            event = parse_line(line)
            kind = event["data"].get("kind")
            first.setdefault(event["event_type"] + (f":{kind}" if kind else ""), event)
    return first


def like(recorded_as: str, /, envelope: dict[str, Any] | None = None, **data: Any) -> Any:
    """A copy of a recorded event with some values replaced."""
    event = copy.deepcopy(recorded()[recorded_as])
    event["data"].update(data)
    event.update(envelope or {})
    return event


def update(**data: Any) -> Any:
    return like("PPO_UPDATE_COMPLETED", **data)


def without(event: dict[str, Any], field: str) -> dict[str, Any]:
    del event["data"][field]
    return event


def live(event: dict[str, Any], slots: bool) -> object:
    """The event as objects: a namespace, or a dataclass with slots as the real system has."""
    members = Enum("EventType", [event["event_type"]])  # type: ignore[misc]
    parts = dict(
        event,
        event_type=members[event["event_type"]],
        timestamp=datetime.fromisoformat(event["timestamp"]),
    )
    if not slots:
        return SimpleNamespace(**{**parts, "data": SimpleNamespace(**event["data"])})
    names = tuple(event["data"])
    return SimpleNamespace(**{**parts, "data": _slotted(names)(*event["data"].values())})


@cache
def _slotted(names: tuple[str, ...]) -> type:
    return make_dataclass("Payload", names, frozen=True, slots=True)
