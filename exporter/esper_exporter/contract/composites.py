"""Values made of values at the border: mappings, sequences, pairs and untyped diagnostics.

Sequences whose positions matter are taken whole or not at all. From mappings and from lists of
records only the bad entries are dropped; the field is then named in ``ignored``. Null entries of
a mapping were not measured and are left out silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

from numpy import bool_

from esper_exporter.contract.scalars import (
    MAX_LABEL,
    Converter,
    InvalidValue,
    WrongType,
    encodable,
    flag,
    free_text,
    name,
    real,
    string,
    whole,
    wrong,
)
from esper_exporter.contract.vocabulary import HEADS, canonical_head

MAX_ENTRIES = 4096
"""Entries kept of one mapping or sequence."""

_MAX_DEPTH = 6

label = name()
"""A text that names something."""

_HEADS = frozenset(HEADS)
_integer = whole(-(2**63), 2**64 - 1)


def head_name(value: Any, path: str, ignored: list[str]) -> str:
    """A head under its one name; a head that the vocabulary does not know stays as it is."""
    return canonical_head(label(value, path, ignored))


def number_key(value: Any, path: str, ignored: list[str]) -> int:
    """An integer key, which JSON can only write as a text."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    number: int = _integer(value, path, ignored)
    return number


def pairs(value: Any) -> Iterable[tuple[Any, Any]]:
    """At most ``MAX_ENTRIES + 1`` items of a mapping, taken at once so that it may change later."""
    kind = type(value)
    if issubclass(kind, dict):
        return list(islice(dict.items(value), MAX_ENTRIES + 1))
    if issubclass(kind, Mapping):
        return [(key, value[key]) for key in islice(iter(value), MAX_ENTRIES + 1)]
    raise wrong("a mapping", value)


def elements(value: Any) -> list[Any]:
    """At most ``MAX_ENTRIES + 1`` elements of a list or a tuple."""
    kind = type(value)
    if issubclass(kind, list):
        return list.__getitem__(value, slice(MAX_ENTRIES + 1))
    if issubclass(kind, tuple):
        return list(tuple.__getitem__(value, slice(MAX_ENTRIES + 1)))
    raise wrong("a list", value)


def mapping_of(key: Converter, item: Converter, plain: type | None = None) -> Converter:
    """Converter for a mapping of one kind of key to one kind of value.

    ``plain`` is the type of values that are taken as they are; so are keys that name a head, or
    that are short ASCII texts where no head is meant.
    """
    by_head = key is head_name

    def convert(value: Any, path: str, ignored: list[str]) -> dict[Any, Any]:
        entries: dict[Any, Any] = {}
        for count, (raw_key, raw_item) in enumerate(pairs(value)):
            if count == MAX_ENTRIES:
                ignored.append(path)
                break
            if raw_item is None:
                continue
            if (
                type(raw_item) is plain
                and type(raw_key) is str
                and (
                    raw_key in _HEADS
                    if by_head
                    else key is label and len(raw_key) <= MAX_LABEL and raw_key.isascii()
                )
            ):
                if entries.get(raw_key) is not True:
                    entries[raw_key] = raw_item
                continue
            try:
                entry = key(raw_key, path, ignored)
                converted = item(raw_item, path, ignored)
            except Exception:
                ignored.append(path)
                continue
            # Two spellings of one head: a flag that is up stays up.
            if entries.get(entry) is not True:
                entries[entry] = converted
        return entries

    return convert


def sequence_of(item: Converter) -> Converter:
    """Converter for a sequence in which the position has a meaning: every element or none."""

    def convert(value: Any, path: str, ignored: list[str]) -> tuple[Any, ...]:
        found = elements(value)
        if len(found) > MAX_ENTRIES:
            raise InvalidValue(f"more than {MAX_ENTRIES} entries")
        return tuple([item(element, path, ignored) for element in found])

    return convert


def records_of(item: Converter) -> Converter:
    """Converter for a list of records: those that cannot be read are dropped."""

    def convert(value: Any, path: str, ignored: list[str]) -> tuple[Any, ...]:
        found = elements(value)
        if len(found) > MAX_ENTRIES:
            del found[MAX_ENTRIES:]
            ignored.append(path)
        records = []
        for element in found:
            try:
                records.append(item(element, path, ignored))
            except Exception:
                ignored.append(path)
        return tuple(records)

    return convert


def group_of(*items: Converter) -> Converter:
    """Converter for a fixed number of elements, each of a given kind."""

    def convert(value: Any, path: str, ignored: list[str]) -> tuple[Any, ...]:
        found = elements(value)
        if len(found) != len(items):
            raise WrongType(f"expected {len(items)} elements, got {len(found)}")
        return tuple(
            [item(element, path, ignored) for item, element in zip(items, found, strict=True)]
        )

    return convert


def diagnostics(value: Any, path: str, ignored: list[str]) -> dict[str, Any]:
    """A mapping without a schema: plain values only, six levels and 4096 values at most."""
    return _Plain(path, ignored).mapping(value, _MAX_DEPTH)


class _Plain:
    """Copies untyped diagnostics and counts the values, so that no input makes it endless."""

    def __init__(self, path: str, ignored: list[str]) -> None:
        self._path = path
        self._ignored = ignored
        self._left = MAX_ENTRIES

    def mapping(self, value: Any, depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, item in pairs(value):
            if self._left <= 0:
                self._ignored.append(self._path)
                break
            try:
                text = encodable(string(key)[:256])
                copied[text] = self._value(item, depth - 1)
            except Exception:
                self._ignored.append(self._path)
        return copied

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise WrongType("too many values")
        if value is None:
            return None
        for convert in (flag_only, _integer_only, real, free_text):
            try:
                return convert(value, self._path, self._ignored)
            except (WrongType, InvalidValue):
                continue
        if depth <= 0:
            raise WrongType("nested too deeply")
        if issubclass(type(value), (list, tuple)):
            return tuple([self._value(item, depth - 1) for item in elements(value)])
        return self.mapping(value, depth)


def flag_only(value: Any, path: str, ignored: list[str]) -> bool:
    """A flag that is one by type; 0 and 1 of a diagnostic are numbers."""
    if type(value) not in (bool, bool_):
        raise wrong("a flag", value)
    return flag(value, path, ignored)


def _integer_only(value: Any, path: str, ignored: list[str]) -> int:
    if not issubclass(type(value), Integral):
        raise wrong("an integer", value)
    number: int = _integer(value, path, ignored)
    return number
