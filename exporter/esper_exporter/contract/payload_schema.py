"""How a payload class is read, worked out once from its annotations.

There are two ways. The fast one is ``msgspec.convert``, for values that are exactly what the
annotations say. What it refuses goes the lenient way: field by field, with a converter each, so
that a bad value costs only its own field, and is counted. Both give the same payload wherever the
fast one gives any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin

import msgspec

from esper_exporter.contract.composites import (
    diagnostics,
    group_of,
    head_name,
    label,
    mapping_of,
    number_key,
    records_of,
    sequence_of,
)
from esper_exporter.contract.fast_path import MAX_CLASSES, read_at_once
from esper_exporter.contract.fields import (
    LARGEST_WHOLE,
    MAX_ENV_ID,
    SMALLEST_WHOLE,
    Count,
    EnvId,
    GradientState,
    Head,
    Label,
    Seed,
    Text,
    TextFloat,
    Whole,
)
from esper_exporter.contract.plain_texts import is_payload, without_none
from esper_exporter.contract.rejection import INVALID_VALUE, MISSING_FIELD, WRONG_TYPE, Rejected
from esper_exporter.contract.scalars import (
    MAX_LABEL,
    Converter,
    InvalidValue,
    WrongType,
    flag,
    free_text,
    name,
    real,
    real_or_text,
    whole,
)
from esper_exporter.contract.stored_values import NO_OBJECTS

_UNREADABLE = object()
"""Stands for a value that raised when it was looked at; no converter takes it."""

_KEPT_TYPES: tuple[tuple[Any, type], ...] = (
    *((float, float), (bool, bool), (str, str), (Whole, int), (Seed, int), (GradientState, str)),
)
"""Annotation → the type whose values need no conversion, once their size is checked."""

_ATTRIBUTING = frozenset({"slot_id", "blueprint_id"})
"""Optional names without which an event cannot be attributed to the right thing."""

_SMALL = 2**63
_any_whole = whole(SMALLEST_WHOLE, LARGEST_WHOLE)
_env_id = whole(0, MAX_ENV_ID, fatal=True)


@dataclass(frozen=True, slots=True)
class PlannedField:
    """One field: how it is read the lenient way, and whether the event is nothing without it."""

    name: str
    convert: Converter
    required: bool
    may_be_none: bool
    exact: type | None
    """A value of exactly this type needs no conversion, a short ASCII text or a 64 bit integer
    included."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All fields of a payload class, and the values of one that carries nothing."""

    payload: type[msgspec.Struct]
    fields: dict[str, PlannedField]
    required: tuple[str, ...]
    empty: dict[str, Any]
    exact: dict[str, type]
    """Field → type whose values need no conversion."""
    getters: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]]
    """Class of a live payload → the planned names it has, and what gets them at once."""


@cache
def plan_of(payload: type[msgspec.Struct]) -> Plan:
    """The plan of a payload class."""
    planned = []
    for field in msgspec.structs.fields(payload):
        hint, optional = without_none(field.type)
        planned.append(
            PlannedField(
                field.name,
                _converter(field.name, hint, field.required),
                field.required,
                optional,
                next((kept for kind, kept in _KEPT_TYPES if hint == kind), None),
            )
        )
    return Plan(
        payload,
        {each.name: each for each in planned},
        tuple(each.name for each in planned if each.required and not each.may_be_none),
        dict.fromkeys(each.name for each in planned),
        {each.name: each.exact for each in planned if each.exact is not None},
        {},
    )


def _converter(field: str, hint: Any, required: bool) -> Converter:
    scalars: tuple[tuple[Any, Converter], ...] = (
        (float, real_or_text),
        (TextFloat, real_or_text),
        (Whole, _any_whole),
        (Seed, _any_whole),
        (Count, whole(0, LARGEST_WHOLE)),
        (GradientState, name()),
        (EnvId, _env_id),
        (bool, flag),
        (str, name(fatal=required or field in _ATTRIBUTING)),
        (Text, free_text),
    )
    for kind, convert in scalars:
        if hint == kind:
            return convert
    if is_payload(hint):
        return nested(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        if args[1] is Any:
            return diagnostics
        keys = ((Label, label), (Head, head_name), (Whole, number_key))
        key = next(convert for kind, convert in keys if args[0] == kind)
        plain = args[1] if args[1] in (float, bool) else None
        return mapping_of(key, _converter("", args[1], False), plain)
    if origin is tuple:
        if args[-1] is not Ellipsis:
            return group_of(*(_converter("", arg, False) for arg in args))
        inner = args[0]
        if get_origin(inner) is dict:
            return records_of(diagnostics)
        if is_payload(inner) or get_origin(inner) is tuple:
            return records_of(_converter("", inner, False))
        return sequence_of(real if inner is float else _converter("", inner, False))
    raise TypeError(f"no way to read {field}: {hint}")


def nested(payload: type[msgspec.Struct]) -> Converter:
    """Converter for a payload inside a payload."""

    def convert(value: Any, path: str, ignored: list[str]) -> Any:
        if value is None or issubclass(type(value), NO_OBJECTS):
            raise WrongType(f"expected a {payload.__name__}, got {type(value).__name__[:64]}")
        inner: list[str] = []
        try:
            made = read_at_once(payload, value)
            if made is None:
                made = read_fields(plan_of(payload), value, inner)
        except Rejected as refused:
            raise WrongType(refused.detail) from None
        ignored += (f"{path}.{each}" for each in inner)
        return made

    return convert


def read_fields(plan: Plan, source: object, ignored: list[str], lenient: bool = False) -> Any:
    """A payload from a mapping or, by attribute, from any other object, field by field.

    Raises Rejected for a required field that is missing or of the wrong type; an optional one
    that makes no sense is None and named in ``ignored``. ``lenient`` takes whatever can be read.
    """
    values = plan.empty.copy()
    find, exact = plan.fields.get, plan.exact.get
    for field_name, raw in _items(plan, source):
        if raw is None:
            continue
        kind = type(raw)
        if kind is exact(field_name) and (
            kind is float
            or kind is bool
            or (len(raw) <= MAX_LABEL and raw.isascii() if kind is str else -_SMALL <= raw < _SMALL)
        ):
            values[field_name] = raw
            continue
        field = find(field_name)
        if field is not None:
            values[field_name] = _convert(field, raw, ignored, lenient)
    if not lenient:
        # A sender that cannot measure a field says so; one that forgets it is refused.
        excused = values.get("not_measured") or ()
        missing = [each for each in plan.required if values[each] is None and each not in excused]
        if missing:
            raise Rejected(MISSING_FIELD, ", ".join(missing))
    return plan.payload(**values)


def _items(plan: Plan, source: object) -> Iterable[tuple[str, Any]]:
    """Names and values of a mapping, or of the planned attributes of any other object."""
    if type(source) is dict:
        return source.copy().items()
    if isinstance(source, Mapping):
        return [(each, _guarded(source.get, each)) for each in plan.fields]
    return _attributes(plan, source)


def _attributes(plan: Plan, source: object) -> Iterable[tuple[str, Any]]:
    """The planned attributes that objects of this class have, all at once."""
    kind = type(source)
    known = plan.getters.get(kind)
    if known is not None:
        names, get = known
        try:
            return zip(names, get(source), strict=True)
        except Exception:
            # One attribute that raises must not hide the others: a flag may be up among them.
            return [(each, _guarded(getattr, source, each, None)) for each in plan.fields]
    declared = getattr(kind, "__dataclass_fields__", ())
    names = tuple(each for each in plan.fields if each in declared or hasattr(kind, each))
    if declared and len(names) > 1 and len(plan.getters) < MAX_CLASSES:
        plan.getters[kind] = (names, attrgetter(*names))
    # Each attribute once: looking may call code that is slow or emits.
    return [(each, _guarded(getattr, source, each, None)) for each in plan.fields]


def _guarded(find: Callable[..., Any], *args: Any) -> Any:
    try:
        return find(*args)
    except Exception:
        return _UNREADABLE


def _convert(field: PlannedField, raw: Any, ignored: list[str], lenient: bool) -> Any:
    try:
        return field.convert(raw, field.name, ignored)
    except WrongType as problem:
        if field.required and not lenient:
            raise Rejected(WRONG_TYPE, f"{field.name}: {problem}") from None
    except InvalidValue as problem:
        if (field.required or problem.fatal) and not lenient:
            raise Rejected(INVALID_VALUE, f"{field.name}: {problem}") from None
    except Exception:
        if field.required and not lenient:
            raise Rejected(WRONG_TYPE, f"{field.name}: cannot be read") from None
    ignored.append(field.name)
    return None
