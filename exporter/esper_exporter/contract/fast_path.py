"""The fast way to read a payload: ``msgspec.convert``, where it gives what the lenient way gives.

It takes some values as they are that must not come in so: subclasses that override methods,
lone surrogates, long texts, sets. A check for each such field looks at them before.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from msgspec.structs import astuple

from esper_exporter.contract.composites import MAX_ENTRIES
from esper_exporter.contract.fields import LARGEST_WHOLE, Head, Seed, Text, TextFloat
from esper_exporter.contract.scalars import MAX_LABEL, MAX_TEXT, real_or_text
from esper_exporter.contract.vocabulary import OTHER_SPELLINGS

NO_OBJECTS = (str, bytes, int, float, list, tuple, set)
"""What is no event and no payload, though it has attributes. A tuple, not a union: that would be
built anew for each event, which costs as much as reading five fields."""

MAX_CLASSES = 256
"""Classes of live payloads whose layout is remembered."""

_NOTHING = type(None)
_TEXT: frozenset[type] = frozenset({str})
_NUMBERS: frozenset[type] = frozenset({float, int, str, np.float32, np.float64})
"""Types of a `TextFloat` whose conversion calls no foreign code."""

_HOLDING = (dict, tuple)
_SEQUENCES = (list, tuple)

Check = Callable[[Any], bool]
"""Whether a value that is not None may go the fast way."""

Texts = Callable[[Any], Iterable[Any]]
"""The texts in a value that was converted."""


@dataclass(frozen=True, slots=True)
class PlainClass:
    """A class of live payloads whose fields are only stored."""

    stored: tuple[str, ...] = ()
    """The payload's fields that each of its objects has in a slot, where there are only slots."""
    get: Callable[[Any], tuple[Any, ...]] | None = None


@dataclass(frozen=True, slots=True)
class FastPlan:
    """What is looked at before and after a payload of a class is converted."""

    payload: type[msgspec.Struct]
    checks: tuple[tuple[str, Check], ...]
    flat: bool
    """Whether none of its values holds other values, or needs help with its conversion."""
    has_labels: bool
    labels: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    """The texts among the values of a payload that was converted."""
    labels_of: Callable[[Any], Iterable[Any]]
    """The same of such a payload in another one."""
    inner: tuple[tuple[int, Texts], ...]
    """The places of those of its values that hold texts, and how to find the texts."""
    plain_classes: dict[type, PlainClass | None] = field(default_factory=dict)
    """Class of a live payload → how its fields are looked at, None where that calls its code."""


@cache
def fast_plan_of(payload: type[msgspec.Struct]) -> FastPlan:
    """The checks of a payload class."""
    checks: list[tuple[str, Check]] = []
    labels: list[str] = []
    inner: dict[str, Texts] = {}
    flat = True
    for each in msgspec.structs.fields(payload):
        hint = without_none(each.type)[0]
        check = _check(hint)
        if check is not None:
            checks.append((each.name, check))
        if hint is str:
            labels.append(each.name)
        elif (texts := _texts(hint)) is not None:
            inner[each.name] = texts
        flat = flat and not (is_payload(hint) or hint is TextFloat or get_origin(hint) in _HOLDING)
    return FastPlan(
        payload,
        tuple(checks),
        flat,
        bool(labels),
        _getter(payload, labels),
        _attributes(labels),
        tuple((payload.__struct_fields__.index(name), of) for name, of in inner.items()),
    )


def _getter(
    payload: type[msgspec.Struct], names: Iterable[str]
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """What picks these fields, however many they are, from all of a payload's values: one look
    at a tuple costs a tenth of one at an attribute."""
    places = [payload.__struct_fields__.index(name) for name in names]
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda values: ()
    place = places[0]
    return lambda values: (values[place],)


def _attributes(names: list[str]) -> Callable[[Any], Iterable[Any]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda made: [getattr(made, name) for name in names]


def without_none(hint: Any) -> tuple[Any, bool]:
    """An annotation without its None, and whether it had one."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not types.NoneType]
        return rest[0], len(rest) < len(get_args(hint))
    return hint, False


def is_payload(hint: Any) -> bool:
    """Whether an annotation is a payload class."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def read_at_once(payload: type[msgspec.Struct], source: Any) -> Any:
    """A payload whose values need no conversion, None where any does or makes no sense.

    It calls no code of the objects that it looks at.
    """
    plan = fast_plan_of(payload)
    try:
        if type(source) is not dict:
            source = _stored(plan, source)
        for name, check in plan.checks:
            value = source.get(name)
            if value is not None and not check(value):
                return None
        if plan.flat:
            made = msgspec.convert(source, payload)
            texts: Collection[Any] = plan.labels(astuple(made))
        else:
            made = msgspec.convert(source, payload, from_attributes=True, dec_hook=_convert_custom)
            values = astuple(made)
            found = [*plan.labels(values)]
            for place, texts_in in plan.inner:
                if values[place]:
                    found += texts_in(values[place])
            texts = found
        return made if not texts or _all_fit(texts) else None
    except Exception:
        return None


def _all_fit(found: Collection[Any]) -> bool:
    """Whether texts need no conversion: none of a subclass, too long, or with lone surrogates."""
    texts = [text for text in found if text is not None]
    if not _TEXT.issuperset(map(type, texts)):
        return False
    joined = "".join(texts)
    return joined.isascii() and (len(joined) <= MAX_LABEL or max(map(len, texts)) <= MAX_LABEL)


def _stored(plan: FastPlan, source: Any) -> dict[str, Any]:
    """The fields of a live payload. Raises TypeError for one whose code would be called."""
    kind = type(source)
    if kind not in plan.plain_classes:
        known = _plain_class(plan, kind)
        if len(plan.plain_classes) < MAX_CLASSES:
            plan.plain_classes[kind] = known
    else:
        known = plan.plain_classes[kind]
    if known is None:
        raise TypeError("attributes that are computed")
    if known.get is not None:
        # A slot that was never filled raises: the lenient way finds the others.
        return dict(zip(known.stored, known.get(source), strict=True))
    names = plan.payload.__struct_fields__
    return {name: value for name in names if (value := getattr(source, name, None)) is not None}


def _check(hint: Any) -> Check | None:
    """The check of a field that ``msgspec.convert`` takes more for than the lenient way does, or
    takes as it is: sets, long things, what runs code of its own. Texts are looked at later."""
    if hint == Text:
        return lambda value: type(value) is str and len(value) <= MAX_TEXT and value.isascii()
    if hint == Seed:
        return lambda value: type(value) is int and value <= LARGEST_WHOLE
    if hint is TextFloat:
        return lambda value: type(value) in _NUMBERS
    if hint is Any:
        return lambda value: False
    if is_payload(hint):
        plan = fast_plan_of(hint)
        whole = partial(_is_plain, plan)
        return whole if plan.checks else lambda value: type(value) is dict or whole(value)
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        return _plain_mapping(args[0] == Head, _check(args[1]))
    if origin is tuple:
        return _plain_sequence(_check(args[0]))
    return None


def _plain_mapping(by_head: bool, item: Check | None) -> Check:
    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and len(value) <= MAX_ENTRIES
            and (item is None or all(map(item, value.values())))
            and (
                not by_head
                or (_TEXT.issuperset(map(type, value)) and OTHER_SPELLINGS.isdisjoint(value))
            )
        )

    if by_head or item is not None:
        return check
    return lambda value: type(value) is dict and len(value) <= MAX_ENTRIES


def _is_plain(plan: FastPlan, value: Any) -> bool:
    """Whether a payload in another one may be converted with it."""
    if type(value) is not dict:
        value = _stored(plan, value)
    for name, check in plan.checks:
        found = value.get(name)
        if found is not None and not check(found):
            return False
    return True


def _plain_sequence(item: Check | None) -> Check:
    return lambda value: (
        type(value) in _SEQUENCES
        and len(value) <= MAX_ENTRIES
        and (item is None or all(map(item, value)))
    )


def _keys_and_texts(of_item: Texts, value: Any) -> Iterable[Any]:
    texts = [*value]
    for item in value.values():
        texts += of_item(item)
    return texts


def _texts(hint: Any) -> Texts | None:
    """How to find the texts in a value of a field, None where there are none."""
    if hint is str:
        return lambda value: (value,)
    if is_payload(hint):
        plan = fast_plan_of(hint)
        return plan.labels_of if plan.has_labels else None
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        of_item = _texts(args[1])
        if args[1] is str:
            return lambda value: chain(value, value.values())
        if of_item is None:
            return (lambda value: value) if args[0] in (str, Head) else None
        return partial(_keys_and_texts, of_item)
    if origin is tuple and args[-1] is not Ellipsis:
        places = [place for place, arg in enumerate(args) if arg is str]
        return (lambda value: [value[place] for place in places]) if places else None
    if origin is tuple:
        of_item = _texts(args[0])
        if args[0] is str:
            return lambda value: value
        return of_item and (lambda value: chain.from_iterable(map(of_item, value)))
    return None


def _plain_class(plan: FastPlan, kind: type) -> PlainClass | None:
    """How the attributes of these objects are looked up, None unless they are only stored: an
    attribute that raises would be taken for one that is absent, and one that computes would be
    computed twice."""
    if not only_stores(kind, plan.payload.__struct_fields__):
        return None
    found = {
        name: type(inspect.getattr_static(kind, name, None))
        for name in plan.payload.__struct_fields__
    }
    slots = [name for name, of in found.items() if of is types.MemberDescriptorType]
    inherited = set(found.values()) - {types.MemberDescriptorType, _NOTHING}
    if kind.__dictoffset__ or inherited or len(slots) < 2:
        return PlainClass()
    return PlainClass(tuple(slots), attrgetter(*slots))


def only_stores(kind: type, names: Iterable[str]) -> bool:
    """Whether looking up these attributes of the class' objects calls no code of it."""
    if (
        issubclass(kind, (type, types.ModuleType, Mapping, *NO_OBJECTS))
        or kind.__getattribute__ is not object.__getattribute__
        or inspect.getattr_static(kind, "__getattr__", None) is not None
    ):
        return False
    for name in names:
        stored = type(inspect.getattr_static(kind, name, None))
        if stored is not types.MemberDescriptorType and hasattr(stored, "__get__"):
            return False
    return True


def _convert_custom(_kind: type, value: Any) -> Any:
    """Called by msgspec for a TextFloat, whatever the value is."""
    return real_or_text(value, "", [])
