"""The fast way to read a payload: ``msgspec.convert``, where it gives what the lenient way gives.

It takes some values as they are that must not come in so: subclasses that override methods,
lone surrogates, long texts, sets. A check for each such field looks at them before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from msgspec.structs import astuple

from esper_exporter.contract.composites import MAX_ENTRIES
from esper_exporter.contract.fields import LARGEST_WHOLE, Head, Seed, Text, TextFloat
from esper_exporter.contract.plain_texts import (
    NAMES,
    TEXT,
    compiled,
    fits_of,
    is_payload,
    without_none,
)
from esper_exporter.contract.scalars import MAX_TEXT, real_or_text
from esper_exporter.contract.stored_values import Getter, getter_of
from esper_exporter.contract.vocabulary import OTHER_SPELLINGS

MAX_CLASSES = 256
"""Classes of live payloads whose layout is remembered."""

_NUMBERS: frozenset[type] = frozenset({float, int, str, np.float32, np.float64})
"""Types of a `TextFloat` whose conversion calls no foreign code."""

_DICT: frozenset[type] = frozenset({dict})
_SEQUENCES: frozenset[type] = frozenset({list, tuple})


@dataclass(frozen=True, slots=True)
class FastPlan:
    """How a payload of a class is read: both ways return None for what is not plain."""

    payload: type[msgspec.Struct]
    plain: bool
    """Whether every value of its fields may be converted, whatever it is."""
    may_convert: Callable[[dict[str, Any]], bool]
    """Whether the values in a dict may be converted."""
    may_convert_stored: Callable[[Sequence[Any]], bool]
    """The same of a live payload's values, by place."""
    read_dict: Callable[[dict[str, Any]], Any]
    read_stored: Callable[[Sequence[Any]], Any]
    getters: dict[type, Getter | None] = field(default_factory=dict)
    """Class of a live payload → what gets its values, None where that would call its code."""

    def getter(self, kind: type) -> Getter:
        """What gets the fields of a live payload of a class. Raises TypeError for a class whose
        code would be called."""
        try:
            found = self.getters[kind]
        except KeyError:
            found = getter_of(kind, self.payload.__struct_fields__)
            if len(self.getters) < MAX_CLASSES:
                self.getters[kind] = found
        if found is None:
            raise TypeError("attributes that are computed")
        return found


@cache
def fast_plan_of(payload: type[msgspec.Struct]) -> FastPlan:
    """How a payload class is read."""
    hints = {each.name: without_none(each.type)[0] for each in msgspec.structs.fields(payload)}
    scope: dict[str, Any] = {}
    found = {name: _condition(hint, scope) for name, hint in hints.items()}
    checks = {name: condition for name, condition in found.items() if condition is not None}
    nested = any(
        is_payload(hint) or hint is TextFloat or get_origin(hint) in (dict, tuple)
        for hint in hints.values()
    )
    by_name = [(f"source.get({name!r})", condition) for name, condition in checks.items()]
    by_place = [
        (f"source[{place}]", checks[name]) for place, name in enumerate(hints) if name in checks
    ]
    of_nested = ", from_attributes=True, dec_hook=convert_custom"
    in_dict = f"convert(source, payload{of_nested if nested else ''})"
    stored = f"payload(*astuple(convert(source, row_of(payload){of_nested})))"
    fits = fits_of(payload)
    scope |= {
        "convert": msgspec.convert,
        "convert_custom": _convert_custom,
        "payload": payload,
        "astuple": astuple,
        "row_of": row_of,
        "fits": fits,
    }
    made = "made if fits(made) else None" if fits is not None else "made"
    return FastPlan(
        payload,
        not checks,
        _compiled_checks(by_name, ["return True"], "False", scope),
        _compiled_checks(by_place, ["return True"], "False", scope),
        _compiled_checks(by_name, [f"made = {in_dict}", f"return {made}"], "None", scope),
        _compiled_checks(by_place, [f"made = {stored}", f"return {made}"], "None", scope),
    )


def _compiled_checks(
    checks: Iterable[tuple[str, str]], rest: Sequence[str], refused: str, scope: Mapping[str, Any]
) -> Callable[[Any], Any]:
    lines = ["def compiled(source):"]
    for value, condition in checks:
        lines.append(f"    value = {value}")
        lines.append(f"    if value is not None and not ({condition}): return {refused}")
    return compiled([*lines, *(f"    {line}" for line in rest)], scope)


@cache
def row_of(payload: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A class with a payload's fields that is converted from their values in order.

    Nobody else has it before msgspec has worked it out, at its first conversion: a second thread
    that converts into the same class meanwhile ends the process with SIGSEGV (msgspec 0.22).
    """
    fields = [(each.name, each.type) for each in msgspec.structs.fields(payload)]
    row = msgspec.defstruct(f"{payload.__name__}Row", fields, array_like=True)
    with suppress(msgspec.ValidationError):
        msgspec.convert([], row)
    return row


def prepare(payloads: Iterable[type[msgspec.Struct]]) -> None:
    """Work out how payloads are read, before the first comes."""
    for payload in payloads:
        fast_plan_of(payload)
        row_of(payload)


def read_at_once(payload: type[msgspec.Struct], source: Any) -> Any:
    """A payload whose values need no conversion, None where any does or makes no sense.

    It calls no code of the objects that it looks at.
    """
    try:
        plan = fast_plan_of(payload)
        if type(source) is dict:
            return plan.read_dict(source)
        return plan.read_stored(plan.getter(type(source))(source))
    except Exception:
        return None


def _condition(hint: Any, scope: dict[str, Any]) -> str | None:
    """The condition on ``value``, with names in ``scope``, for a field that ``msgspec.convert``
    takes more for than the lenient way does, or takes as it is: sets, long things, objects that run
    code. Texts are checked later. None where there is none."""
    if hint == Text:
        return f"type(value) is str and len(value) <= {MAX_TEXT} and value.isascii()"
    if hint == Seed:
        return f"type(value) is int and value <= {LARGEST_WHOLE}"
    if hint is TextFloat:
        return f"type(value) in {_named(_NUMBERS, scope)}"
    if hint is Any:
        return "False"
    if is_payload(hint):
        plan = fast_plan_of(hint)
        live = _named(partial(_is_plain, plan), scope)
        if plan.plain:
            return f"type(value) is dict or {live}(value)"
        in_dict = _named(plan.may_convert, scope)
        return f"({in_dict}(value) if type(value) is dict else {live}(value))"
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        return _of_mapping(args[0], args[1], scope)
    if origin is tuple:
        few = f"type(value) in {_named(_SEQUENCES, scope)} and len(value) <= {MAX_ENTRIES}"
        items = _of_items(args[0], "value", scope)
        return few if items is None else f"{few} and {items}"
    return None


def _of_mapping(key: Any, item: Any, scope: dict[str, Any]) -> str:
    conditions = [f"len(value) <= {MAX_ENTRIES}"]
    if key in NAMES:
        conditions.append(f"{_named(TEXT, scope)}.issuperset(map(type, value))")
    if key == Head:
        conditions.append(f"{_named(OTHER_SPELLINGS, scope)}.isdisjoint(value)")
    items = _of_items(item, "value.values()", scope)
    if items is not None:
        conditions.append(items)
    return f"type(value) is dict and (not value or ({' and '.join(conditions)}))"


def _of_items(hint: Any, values: str, scope: dict[str, Any]) -> str | None:
    inner: dict[str, Any] = {}
    condition = _condition(hint, inner)
    if condition is None:
        return None
    each = compiled(["def compiled(value):", f"    return {condition}"], inner)
    checked = f"all(map({_named(each, scope)}, {values}))"
    if is_payload(hint) and fast_plan_of(hint).plain:
        return f"({_named(_DICT, scope)}.issuperset(map(type, {values})) or {checked})"
    return checked


def _named(value: Any, scope: dict[str, Any]) -> str:
    """A name for a value that a condition uses."""
    name = f"named_{len(scope)}"
    scope[name] = value
    return name


def _is_plain(plan: FastPlan, value: Any) -> bool:
    """Whether a live payload in another one may be converted with it."""
    get = plan.getter(type(value))
    return plan.plain or plan.may_convert_stored(get(value))


def _convert_custom(_kind: type, value: Any) -> Any:
    """Called by msgspec for a TextFloat, whatever the value is."""
    if type(value) is float:
        return value
    return real_or_text(value, "", [])
