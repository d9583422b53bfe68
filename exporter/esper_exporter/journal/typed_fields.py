"""Fields of an event's payload as the contract types them; values of another type are left out.

So a line says the same here as in the journal's columns, and nothing behind it meets a list where a
number should be, or a number that no float holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from esper_exporter.journal.columns import Shape, Table, tables

_Reader = Callable[[Any], Any]
"""Returns the typed value, None for a value of another type."""

_LONGEST_NUMBER = 64
"""The longest text that is read as a number."""


def typed_fields(table: Table, data: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``data`` that the table has columns for and that are of its types."""
    found = {}
    for name, read in _readers(table.type).items():
        raw = data.get(name)
        value = None if raw is None else read(raw)
        if value is not None:
            found[name] = value
    return found


@cache
def _readers(kind: str) -> dict[str, _Reader]:
    return {column.name: _reader(column.shape) for column in tables()[kind].columns}


def _reader(shape: Shape) -> _Reader:
    if isinstance(shape, list):
        return _list_of(_reader(shape[0]))
    if isinstance(shape, dict):
        return _struct_of({name: _reader(each) for name, each in shape.items()})
    if shape.startswith("MAP("):
        inner = shape.removeprefix("MAP(VARCHAR, ").removesuffix(")")
        return _map_of(_SCALARS[inner])
    return _SCALARS[shape]


def _number(raw: Any) -> float | None:
    if isinstance(raw, str) and len(raw) > _LONGEST_NUMBER:
        return None
    if not isinstance(raw, int | float | str) or isinstance(raw, bool):
        return None
    try:
        return float(raw)
    except (ValueError, OverflowError):
        return None


def _whole(raw: Any) -> int | None:
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    is_whole = isinstance(raw, int) and not isinstance(raw, bool)
    return raw if is_whole and -(1 << 63) <= raw < 1 << 64 else None


def _flag(raw: Any) -> bool | None:
    return raw if isinstance(raw, bool) else None


def _text(raw: Any) -> str | None:
    return raw if isinstance(raw, str) else None


def _as_it_is(raw: Any) -> Any:
    return raw


_SCALARS: dict[str, _Reader] = {
    "DOUBLE": _number,
    "BIGINT": _whole,
    "UBIGINT": _whole,
    "BOOLEAN": _flag,
    "VARCHAR": _text,
    "JSON": _as_it_is,
}


def _list_of(read: _Reader) -> _Reader:
    def values(raw: Any) -> list[Any] | None:
        if not isinstance(raw, list | tuple):
            return None
        return [value for each in raw if (value := read(each)) is not None]

    return values


def _map_of(read: _Reader) -> _Reader:
    def values(raw: Any) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            return None
        return {name: value for name, each in raw.items() if (value := read(each)) is not None}

    return values


def _struct_of(readers: dict[str, _Reader]) -> _Reader:
    def values(raw: Any) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            return None
        return {
            name: value
            for name, read in readers.items()
            if raw.get(name) is not None and (value := read(raw[name])) is not None
        }

    return values
