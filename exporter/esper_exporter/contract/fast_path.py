"""The fast way to read a payload: ``msgspec.convert``, where it gives what the lenient way gives.

It takes some values as they are that must not come in so: subclasses that override methods,
lone surrogates, long texts, sets. A check for each such field looks at them before.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from msgspec.structs import astuple

from esper_exporter.contract.composites import MAX_ENTRIES
from esper_exporter.contract.fields import LARGEST_WHOLE, Head, Label, Seed, Text, TextFloat
from esper_exporter.contract.scalars import MAX_LABEL, MAX_TEXT, real_or_text
from esper_exporter.contract.stored_values import Getter, getter_of
from esper_exporter.contract.vocabulary import OTHER_SPELLINGS

MAX_CLASSES = 256
"""Classes of live payloads whose layout is remembered."""

_TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NONE = _TEXT | {type(None)}
_NUMBERS: frozenset[type] = frozenset({float, int, str, np.float32, np.float64})
"""Types of a `TextFloat` whose conversion calls no foreign code."""

_SEQUENCES = (list, tuple)
_NAMES = (Head, Label)
"""Hints of keys that are texts, of a length that msgspec checks."""

Check = Callable[[Any], bool]
"""Whether a value that is not None may go the fast way."""

Texts = Callable[[Any], Iterable[Any]]
"""The texts in a value that was converted."""


@dataclass(frozen=True, slots=True)
class FastPlan:
    """What is looked at before and after a payload of a class is converted."""

    payload: type[msgspec.Struct]
    flat: bool
    """Whether none of its values holds other values, or needs help with its conversion."""
    checks: tuple[tuple[int, str, Check], ...]
    """By place and name of the field."""
    may_convert: Callable[[dict[str, Any]], bool]
    """Whether a dict passes all of them."""
    fits: Callable[[Any], bool]
    """Whether the texts of a payload that was converted are plain."""
    texts_of: Texts | None
    """The texts of such a payload in another one, None where it has none."""
    getters: dict[type, Getter | None] = field(default_factory=dict)
    """Class of a live payload → what gets its values, None where that would call its code."""


@cache
def fast_plan_of(payload: type[msgspec.Struct]) -> FastPlan:
    """The checks of a payload class."""
    hints = {each.name: without_none(each.type)[0] for each in msgspec.structs.fields(payload)}
    checks = {name: check for name, hint in hints.items() if (check := _check(hint)) is not None}
    labels = [name for name, hint in hints.items() if hint is str]
    inner: dict[str, Texts] = {}
    keyed: list[str] = []
    for name, hint in hints.items():
        if get_origin(hint) is dict:
            texts = _texts_of_values(hint)
            if get_args(hint)[0] in _NAMES:
                keyed.append(name)
        else:
            texts = None if hint is str else _texts(hint)
        if texts is not None:
            inner[name] = texts
    return FastPlan(
        payload,
        not any(
            is_payload(hint) or hint is TextFloat or get_origin(hint) in (dict, tuple)
            for hint in hints.values()
        ),
        tuple((place, name, checks[name]) for place, name in enumerate(hints) if name in checks),
        _compiled_checks(checks),
        _compiled_fits(labels, inner, keyed),
        _attributes(labels),
    )


def _compiled_checks(checks: Mapping[str, Check]) -> Callable[[dict[str, Any]], bool]:
    lines = []
    for number, name in enumerate(checks):
        lines.append(f"    value = source.get({name!r})")
        lines.append(f"    if value is not None and not check_{number}(value): return False")
    return _compiled(
        ["def compiled(source):", *lines, "    return True"],
        {f"check_{number}": check for number, check in enumerate(checks.values())},
    )


def _compiled_fits(
    labels: Sequence[str], inner: Mapping[str, Texts], keyed: Sequence[str]
) -> Callable[[Any], bool]:
    lines = [f"    texts = ({''.join(f'made.{name}, ' for name in labels)})"]
    for number, name in enumerate(inner):
        lines.append(f"    value = made.{name}")
        lines.append(f"    if value: texts = (*texts, *texts_{number}(value))")
    if labels or inner:
        lines.append("    if texts and not all_fit(texts): return False")
    for name in keyed:
        lines.append(f"    value = made.{name}")
        lines.append("    if value and not ''.join(value).isascii(): return False")
    return _compiled(
        ["def compiled(made):", *lines, "    return True"],
        {f"texts_{number}": texts for number, texts in enumerate(inner.values())}
        | {"all_fit": _all_fit},
    )


def _compiled(lines: Sequence[str], scope: dict[str, Any]) -> Callable[[Any], bool]:
    """A function from its lines: a loop over fields takes as long as what is done with them."""
    exec("\n".join(lines), scope)
    compiled: Callable[[Any], bool] = scope["compiled"]
    return compiled


@cache
def _row_of(payload: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A class with a payload's fields that is converted from their values in order.

    Nobody else has it before msgspec has worked it out, at its first conversion: a second thread
    that converts into the same class meanwhile ends the process with SIGSEGV (msgspec 0.22).
    """
    fields = [(each.name, each.type) for each in msgspec.structs.fields(payload)]
    row = msgspec.defstruct(f"{payload.__name__}Row", fields, array_like=True)
    with suppress(msgspec.ValidationError):
        msgspec.convert([], row)
    return row


def _attributes(names: Sequence[str]) -> Texts | None:
    if not names:
        return None
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda made: (get(made),)


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
        if type(source) is dict:
            if not plan.may_convert(source):
                return None
            if plan.flat:
                made = msgspec.convert(source, payload)
            else:
                made = msgspec.convert(
                    source, payload, from_attributes=True, dec_hook=_convert_custom
                )
        else:
            stored = _stored(plan, source)
            for place, _, check in plan.checks:
                value = stored[place]
                if value is not None and not check(value):
                    return None
            # By place: no name has to be looked up.
            row = msgspec.convert(
                stored, _row_of(payload), from_attributes=True, dec_hook=_convert_custom
            )
            made = payload(*astuple(row))
        return made if plan.fits(made) else None
    except Exception:
        return None


def _all_fit(texts: Collection[Any]) -> bool:
    """Whether texts need no conversion: none of a subclass, too long, or with lone surrogates."""
    if not _TEXT_OR_NONE.issuperset(map(type, texts)):
        return False
    joined = "".join(filter(None, texts))
    return joined.isascii() and (
        len(joined) <= MAX_LABEL or max(map(len, filter(None, texts))) <= MAX_LABEL
    )


def _stored(plan: FastPlan, source: Any) -> Sequence[Any]:
    """The fields of a live payload. Raises TypeError for one whose code would be called."""
    kind = type(source)
    if kind in plan.getters:
        get = plan.getters[kind]
    else:
        get = getter_of(kind, plan.payload.__struct_fields__)
        if len(plan.getters) < MAX_CLASSES:
            plan.getters[kind] = get
    if get is None:
        raise TypeError("attributes that are computed")
    return get(source)


def _check(hint: Any) -> Check | None:
    """The check of a field that ``msgspec.convert`` takes more for than the lenient way does, or
    takes as it is: sets, long things, objects that run code. Texts are checked later."""
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
        return _plain_mapping(args[0], _check(args[1]))
    if origin is tuple:
        return _plain_sequence(_check(args[0]))
    return None


def _plain_mapping(key: Any, item: Check | None) -> Check:
    def is_plain(value: Any) -> bool:
        if type(value) is not dict:
            return False
        return not value or (
            len(value) <= MAX_ENTRIES
            and (not named or _TEXT.issuperset(map(type, value)))
            and (not by_head or OTHER_SPELLINGS.isdisjoint(value))
            and (item is None or all(map(item, value.values())))
        )

    named, by_head = key in _NAMES, key == Head
    return is_plain


def _plain_sequence(item: Check | None) -> Check:
    if item is None:
        return lambda value: type(value) in _SEQUENCES and len(value) <= MAX_ENTRIES
    return lambda value: (
        type(value) in _SEQUENCES and len(value) <= MAX_ENTRIES and all(map(item, value))
    )


def _is_plain(plan: FastPlan, value: Any) -> bool:
    """Whether a payload in another one may be converted with it."""
    if type(value) is dict:
        return plan.may_convert(value)
    stored = _stored(plan, value)
    for place, _, check in plan.checks:
        if stored[place] is not None and not check(stored[place]):
            return False
    return True


def _texts(hint: Any) -> Texts | None:
    """How to find the texts in a value, None where there are none."""
    if hint is str:
        return lambda value: (value,)
    if is_payload(hint):
        return fast_plan_of(hint).texts_of
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        of_values = _texts_of_values(hint)
        if of_values is not None:
            return lambda value: chain(value, of_values(value))
        return (lambda value: value) if args[0] in _NAMES else None
    if origin is tuple and args[-1] is not Ellipsis:
        places = [place for place, arg in enumerate(args) if arg is str]
        if len(places) == 1:
            return lambda value: (value[places[0]],)
        return itemgetter(*places) if places else None
    if origin is tuple:
        return (lambda value: value) if args[0] is str else _texts_of_all(_texts(args[0]))
    return None


def _texts_of_values(hint: Any) -> Texts | None:
    """How to find the texts in the values of a mapping."""
    item = get_args(hint)[1]
    if item is str:
        return lambda value: value.values()
    of_all = _texts_of_all(_texts(item))
    return of_all and (lambda value: of_all(value.values()))


def _texts_of_all(of_item: Texts | None) -> Texts | None:
    return of_item and (lambda values: chain.from_iterable(map(of_item, values)))


def _convert_custom(_kind: type, value: Any) -> Any:
    """Called by msgspec for a TextFloat, whatever the value is."""
    return real_or_text(value, "", [])
