"""Write docs/EVENTS.md: every event type, with its required and optional fields."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.payload_schema import plan_of

PAGE = Path(__file__).parents[1] / "docs" / "EVENTS.md"

HEAD = """# Events

<!-- Written by `make generate` from the payload classes in exporter/esper_exporter/contract/. -->

Every event type, and the fields of its `data`, for a loop that reports to the exporter by itself
([the form of an event](INTEGRATION.md#feed-it-from-your-own-loop)).

An event without a required field is refused: counted in
`esper_exporter_events_rejected_total{reason}`, and logged once per kind. An optional field that is
missing or `None` leaves its metrics absent; a value of the wrong type costs only its own field, and
counts in `esper_exporter_fields_ignored_total`. Unknown fields are ignored. Units are the trainer's
(percent, milliseconds, GiB); the page has base units.

Numbers may be Python's, numpy's or tensors of one element. `{a: b}` is a mapping, `[a, …]` a list
or tuple. A minimal run is `TRAINING_STARTED`, then one `TAMIYO_POLICY_UPDATE` for each policy
update.

"""

_NAMES = {
    bool: "bool",
    float: "number",
    int: "integer",
    str: "name",
    Any: "anything",
    type(None): "null",
}
_BY_TITLE = {
    "whole": "integer",
    "count": "integer ≥ 0",
    "seed": "integer",
    "env_id": "integer ≥ 0",
    "text": "text",
    "head": "head",
    "label": "name",
}


def page() -> str:
    """The content of EVENTS.md."""
    nested: dict[str, type[msgspec.Struct]] = {}
    parts = [HEAD]
    for payload, group in _by_payload():
        names = ", ".join(_named(each) for each in group)
        parts.append(f"## {names}\n\n{_fields(payload, nested)}")
    parts.append("## Parts of events\n\nValues of fields above that have fields themselves.\n\n")
    done: set[str] = set()
    while waiting := sorted(nested.keys() - done):
        for name in waiting:
            parts.append(f"### {name}\n\n{_fields(nested[name], nested)}")
            done.add(name)
    return "".join(parts).rstrip() + "\n"


def _by_payload() -> Iterator[tuple[type[msgspec.Struct], list[EventType]]]:
    groups: dict[type[msgspec.Struct], list[EventType]] = {}
    for row in TYPES.values():
        groups.setdefault(row.payload, []).append(row)
    yield from groups.items()


def _named(row: EventType) -> str:
    return row.name + "".join(f" (also {alias})" for alias in row.aliases)


def _fields(payload: type[msgspec.Struct], nested: dict[str, type[msgspec.Struct]]) -> str:
    about = (payload.__doc__ or "").split("\n\n")[0]
    required, optional = [], []
    for field in msgspec.structs.fields(payload):
        kind = _kind(field.type, nested)
        described = f"`{field.name}` {kind.removesuffix(' or null')}"
        (required if field.name in plan_of(payload).required else optional).append(described)
    text = " ".join(about.split()) + "\n\n"
    if required:
        text += f"**Required:** {', '.join(required)}.\n\n"
    if optional:
        text += f"Optional: {', '.join(optional)}.\n\n"
    return text


def _kind(hint: Any, nested: dict[str, type[msgspec.Struct]]) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _BY_TITLE[hint.__metadata__[0].title]
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(each, nested) for each in args)
    if origin is Literal:
        return "one of " + "/".join(f"`{each}`" for each in args)
    if origin is dict:
        return f"{{{_kind(args[0], nested)}: {_kind(args[1], nested)}}}"
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"[{_kind(args[0], nested)}, …]"
        return f"[{', '.join(_kind(each, nested) for each in args)}]"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        nested[hint.__name__] = hint
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _NAMES.get(hint, "number")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("· docs/EVENTS.md")
