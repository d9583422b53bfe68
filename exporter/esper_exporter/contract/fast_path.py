"""The fast way to read a payload: ``msgspec.convert``, where it gives what the lenient way gives.

It takes some values as they are that must not come in so: subclasses that override methods,
lone surrogates, long texts, sets. A check for each such field looks at them before.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin

import msgspec

from esper_exporter.contract.composites import MAX_ENTRIES
from esper_exporter.contract.fields import LARGEST_WHOLE, Head, Seed, Text
from esper_exporter.contract.scalars import MAX_LABEL, MAX_TEXT, real_or_text
from esper_exporter.contract.vocabulary import OTHER_SPELLINGS

NO_OBJECTS = (str, bytes, int, float, list, tuple, set)
"""What is no event and no payload, though it has attributes. A tuple, not a union: that would be
built anew for each event, which costs as much as reading five fields."""

MAX_CLASSES = 256
"""Classes of live payloads whose layout is remembered."""

Check = Callable[[Any], bool]
"""Whether a value that is not None may go the fast way."""


@dataclass(frozen=True, slots=True)
class PlainClass:
    """A class of live payloads whose fields are only stored."""

    stored: tuple[str, ...] = ()
    """The payload's fields that each of its objects has in a slot, where there are only slots."""
    get: Callable[[Any], tuple[Any, ...]] | None = None


@dataclass(frozen=True, slots=True)
class FastPlan:
    """What is looked at before a payload of a class is converted."""

    payload: type[msgspec.Struct]
    checks: tuple[tuple[str, Check], ...]
    label_checks: tuple[tuple[str, Check], ...]
    """Those of texts, where the payload is part of another one."""
    labels: Callable[[Any], tuple[Any, ...]]
    """The texts of a payload that was converted: they are looked at afterwards, all at once."""
    plain_classes: dict[type, PlainClass | None] = field(default_factory=dict)
    """Class of a live payload → how its fields are looked at, None where that calls its code."""


@cache
def fast_plan_of(payload: type[msgspec.Struct]) -> FastPlan:
    """The checks of a payload class."""
    checks, labels = [], []
    for each in msgspec.structs.fields(payload):
        hint = without_none(each.type)[0]
        check = _check(hint)
        if hint is str:
            labels.append((each.name, _plain_label))
        elif check is not None:
            checks.append((each.name, check))
    return FastPlan(
        payload, tuple(checks), tuple(labels), _getter(tuple(name for name, _ in labels))
    )


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What gets these attributes as a tuple, however many they are."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda made: tuple(getattr(made, name) for name in names)


def without_none(hint: Any) -> tuple[Any, bool]:
    """An annotation without its None, and whether it had one."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not types.NoneType]
        return rest[0], len(rest) < len(get_args(hint))
    return hint, False


def is_payload(hint: Any) -> bool:
    """Whether an annotation is a payload class."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def read_at_once(payload: type[msgspec.Struct], source: object) -> Any:
    """A payload whose values need no conversion, None where any does or makes no sense."""
    plan = fast_plan_of(payload)
    try:
        if type(source) is not dict:
            source = _stored(plan, source)
        if not _is_plain(plan, source):
            return None
        made = msgspec.convert(source, payload, from_attributes=True, dec_hook=_convert_custom)
        return made if _has_plain_labels(plan, made) else None
    except Exception:
        return None


def _stored(plan: FastPlan, source: Any) -> Any:
    """The fields of an object that has nothing but slots, else the object."""
    known = plan.plain_classes.get(type(source))
    if known is None or known.get is None:
        return source
    try:
        return dict(zip(known.stored, known.get(source), strict=True))
    except AttributeError:  # a slot that was never filled
        return source


def _has_plain_labels(plan: FastPlan, made: Any) -> bool:
    for text in plan.labels(made):
        if text is not None and (
            type(text) is not str or len(text) > MAX_LABEL or not text.isascii()
        ):
            return False
    return True


def _check(hint: Any) -> Check | None:
    """The check of a field that ``msgspec.convert`` takes more for than the lenient way does, or
    takes as it is: subclasses that override methods, lone surrogates, sets, long things."""
    if hint is str:
        return _plain_label
    if hint == Text:
        return lambda value: type(value) is str and len(value) <= MAX_TEXT and value.isascii()
    if hint == Seed:
        return lambda value: type(value) is int and value <= LARGEST_WHOLE
    if is_payload(hint):
        return _plain_part(hint)
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: False
    if origin is dict:
        return _plain_mapping(args[0], _check(args[1]))
    if origin is tuple and args[-1] is Ellipsis:
        return _plain_sequence(args[0])
    if origin is tuple:
        return _plain_group([_check(each) for each in args])
    return None


def _plain_part(payload: type[msgspec.Struct]) -> Check:
    def check(value: Any) -> bool:
        plan = fast_plan_of(payload)
        return _is_plain(plan, value) and _pass(plan.label_checks, value)

    return check


def _plain_label(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_LABEL and value.isascii()


def _plain_mapping(key: Any, item: Check | None) -> Check:
    keys: Callable[[Any], bool] = {str: _plain_labels, Head: _plain_heads}.get(key, bool)

    def check(value: Any) -> bool:
        return type(value) is dict and (
            not value
            or (
                len(value) <= MAX_ENTRIES
                and keys(value)
                and (item is None or all(map(item, value.values())))
            )
        )

    return check


def _plain_labels(texts: Collection[Any]) -> bool:
    """`_plain_label` for many, in few calls."""
    return set(map(type, texts)) == {str} and (
        max(map(len, texts)) <= MAX_LABEL and "".join(texts).isascii()
    )


def _plain_heads(texts: Collection[Any]) -> bool:
    return _plain_labels(texts) and OTHER_SPELLINGS.isdisjoint(texts)


def _plain_sequence(hint: Any) -> Check:
    item = _check(hint)
    texts = hint is str

    def check(value: Any) -> bool:
        return type(value) in (list, tuple) and (
            not value
            or (
                len(value) <= MAX_ENTRIES
                and (_plain_labels(value) if texts else item is None or all(map(item, value)))
            )
        )

    return check


def _plain_group(items: list[Check | None]) -> Check:
    def check(value: Any) -> bool:
        return (
            type(value) in (list, tuple)
            and len(value) == len(items)
            and all(item is None or item(each) for item, each in zip(items, value, strict=True))
        )

    return check


def _is_plain(plan: FastPlan, source: Any) -> bool:
    """Whether ``msgspec.convert`` gives what the lenient way gives, or refuses."""
    kind = type(source)
    if kind is dict:
        return _pass(plan.checks, source)
    if kind not in plan.plain_classes:
        known = _plain_class(plan, kind)
        if len(plan.plain_classes) < MAX_CLASSES:
            plan.plain_classes[kind] = known
    else:
        known = plan.plain_classes[kind]
    return known is not None and _pass(plan.checks, source)


def _pass(checks: tuple[tuple[str, Check], ...], source: Any) -> bool:
    if type(source) is dict:
        get = source.get
        for name, check in checks:
            value = get(name)
            if value is not None and not check(value):
                return False
        return True
    for name, check in checks:
        value = getattr(source, name, None)
        if value is not None and not check(value):
            return False
    return True


def _plain_class(plan: FastPlan, kind: type) -> PlainClass | None:
    """How the attributes of these objects are looked up, None unless they are only stored: an
    attribute that raises would be taken for one that is absent, and one that computes would be
    computed twice."""
    if (
        issubclass(kind, (type, types.ModuleType, Mapping, *NO_OBJECTS))
        or kind.__getattribute__ is not object.__getattribute__
        or inspect.getattr_static(kind, "__getattr__", None) is not None
    ):
        return None
    slots = []
    only_slots = not kind.__dictoffset__
    for name in plan.payload.__struct_fields__:
        stored = inspect.getattr_static(kind, name, None)
        if type(stored) is types.MemberDescriptorType:
            slots.append(name)
        elif hasattr(type(stored), "__get__"):
            return None
        elif stored is not None:
            only_slots = False
    if not only_slots or len(slots) < 2:
        return PlainClass()
    return PlainClass(tuple(slots), attrgetter(*slots))


def _convert_custom(_kind: type, value: Any) -> Any:
    """Called by msgspec for a TextFloat, whatever the value is."""
    return real_or_text(value, "", [])
