"""Values of the chart: each stands once, in an object, with default, schema and comment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
SWITCH: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}


@dataclass(frozen=True)
class Value:
    """A place of an object that the chart leaves to its user.

    ``path`` is its name below ``.Values``, ``default`` what kustomize's files have. A ``default``
    that is empty (``{}``, ``[]``, ``""``) means: without a value the object lacks the key.
    """

    path: str
    default: Any
    schema: Schema
    comment: str

    @property
    def optional(self) -> bool:
        return self.default in ({}, [], "")


@dataclass(frozen=True)
class Joined:
    """A text made of values and of fixed parts."""

    parts: Sequence[str | Value]


def values_of(whole: Any) -> Iterator[Value]:
    """Every value in an object, in its order; a path may come several times."""
    if isinstance(whole, Value):
        yield whole
    elif isinstance(whole, Joined):
        yield from (part for part in whole.parts if isinstance(part, Value))
    elif isinstance(whole, dict):
        for inner in whole.values():
            yield from values_of(inner)
    elif isinstance(whole, list):
        for inner in whole:
            yield from values_of(inner)


def plain(whole: Any) -> Any:
    """The object with the defaults in their places; optional keys are left out."""
    if isinstance(whole, Value):
        return whole.default
    if isinstance(whole, Joined):
        return "".join(str(plain(part)) for part in whole.parts)
    if isinstance(whole, dict):
        return {
            key: plain(inner)
            for key, inner in whole.items()
            if not (isinstance(inner, Value) and inner.optional)
        }
    if isinstance(whole, list):
        return [plain(inner) for inner in whole]
    return whole


def tree(values: Sequence[Value]) -> dict[str, Any]:
    """The values' defaults by their paths, nested."""
    found: dict[str, Any] = {}
    for value in values:
        *folders, name = value.path.split(".")
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        if place.setdefault(name, value.default) != value.default:
            raise ValueError(f"{value.path} has two defaults")
    return found


def schema(values: Sequence[Value]) -> Schema:
    """A JSON schema of the values; a misspelt name is an error."""
    whole: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart esper",
        "type": "object",
        "additionalProperties": False,
        # Helm adds it for a chart that is another's dependency.
        "properties": {"global": {"type": "object"}},
    }
    for value in values:
        *folders, name = value.path.split(".")
        place = whole
        for folder in folders:
            place = place["properties"].setdefault(
                folder, {"type": "object", "additionalProperties": False, "properties": {}}
            )
        place["properties"][name] = {**value.schema, "description": value.comment}
    return whole
