"""Whether the texts of a converted payload are plain: of type ``str``, ASCII, not too long.

``msgspec.convert`` takes texts as they are. The checks are compiled for each class: a loop over its
fields takes longer than what it does with them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache
from operator import itemgetter
from typing import Any, get_args, get_origin

import msgspec

from esper_exporter.contract.fields import Head, Label
from esper_exporter.contract.scalars import MAX_LABEL

NAMES = (Head, Label)
"""Hints of keys that are texts; their types are checked before, their lengths by msgspec."""

TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NONE = TEXT | {type(None)}

Fits = Callable[[Any], bool]
"""Whether the texts in a converted value are plain."""


@cache
def fits_of(hint: Any) -> Fits | None:
    """The check of values that are declared so, None where they hold no texts. None fits."""
    hint, optional = without_none(hint)
    if hint is str:
        return lambda value: _all_fit((value,))
    if is_payload(hint):
        fits = _of_payload(hint)
    elif get_origin(hint) is dict:
        fits = _of_mapping(*get_args(hint))
    elif get_origin(hint) is tuple:
        fits = _of_tuple(get_args(hint))
    else:
        return None
    if fits is None or not optional:
        return fits
    return lambda value, fits=fits: value is None or fits(value)  # type: ignore[misc]


def without_none(hint: Any) -> tuple[Any, bool]:
    """An annotation without its None, and whether it had one."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not types.NoneType]
        return rest[0], len(rest) < len(get_args(hint))
    return hint, False


def is_payload(hint: Any) -> bool:
    """Whether an annotation is a payload class."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def compiled(lines: list[str], scope: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The function ``compiled`` of these lines, which use the names in ``scope``."""
    names = dict(scope)
    exec("\n".join(lines), names)
    found: Callable[[Any], Any] = names["compiled"]
    return found


def _of_payload(payload: type[msgspec.Struct]) -> Fits | None:
    needed: list[str] = []
    optional: list[str] = []
    inner: dict[str, Fits] = {}
    for field in msgspec.structs.fields(payload):
        hint, may_be_none = without_none(field.type)
        if hint is str:
            (optional if may_be_none else needed).append(field.name)
        elif (fits := fits_of(hint)) is not None:
            inner[field.name] = fits
    if not needed and not optional and not inner:
        return None
    lines = ["def compiled(made):", "    joined = ''"]
    if needed:
        lines += [f"    v{place} = made.{name}" for place, name in enumerate(needed)]
        kinds = " is ".join(f"type(v{place})" for place in range(len(needed)))
        lines.append(f"    if not {kinds} is str: return False")
        lines.append(f"    joined = f'{''.join(f'{{v{place}}}' for place in range(len(needed)))}'")
    for name in optional:
        lines.append(f"    value = made.{name}")
        lines.append("    if value is not None:")
        lines.append("        if type(value) is not str: return False")
        lines.append("        joined += value")
    if needed or optional:
        texts = "".join(f"made.{name}, " for name in (*needed, *optional))
        lines.append("    if not joined.isascii(): return False")
        lines.append(f"    if len(joined) > {MAX_LABEL} and not all_fit(({texts})): return False")
    for number, name in enumerate(inner):
        lines.append(f"    value = made.{name}")
        lines.append(f"    if value and not fits_{number}(value): return False")
    scope = {f"fits_{number}": fits for number, fits in enumerate(inner.values())}
    return compiled([*lines, "    return True"], {"all_fit": _all_fit, **scope})


def _of_mapping(key: Any, item: Any) -> Fits | None:
    of_item = _of_items(item)
    if key in NAMES:
        if item is str:
            return _named_texts_fit
        if of_item is None:
            return lambda value: "".join(value).isascii()
        return lambda value: "".join(value).isascii() and of_item(value.values())
    if key is str:
        if of_item is None:
            return _all_fit
        return lambda value: _all_fit(value) and of_item(value.values())
    return None if of_item is None else lambda value: of_item(value.values())


def _of_items(hint: Any) -> Fits | None:
    """The check of several values that are declared so, at once."""
    if without_none(hint)[0] is str:
        return _all_fit
    if get_origin(hint) is tuple and (place := _only_text(get_args(hint))) is not None:
        text = itemgetter(place)
        return lambda values: _all_fit(list(map(text, values)))
    of_item = fits_of(hint)
    return None if of_item is None else lambda values: all(map(of_item, values))


def _of_tuple(items: tuple[Any, ...]) -> Fits | None:
    if items[-1] is Ellipsis:
        return _of_items(items[0])
    checks = [(place, fits_of(item)) for place, item in enumerate(items)]
    found = [(place, fits) for place, fits in checks if fits is not None]
    if not found:
        return None
    return lambda value: all(fits(value[place]) for place, fits in found)


def _only_text(items: tuple[Any, ...]) -> int | None:
    """The place of the only item that holds a text, if it is one."""
    places = [place for place, item in enumerate(items) if fits_of(item) is not None]
    if len(places) != 1 or items[-1] is Ellipsis or without_none(items[places[0]])[0] is not str:
        return None
    return places[0]


def _named_texts_fit(value: dict[str, Any]) -> bool:
    texts = value.values()
    if not TEXT.issuperset(map(type, texts)):
        return False
    joined = "".join((*value, *texts))
    return joined.isascii() and (len(joined) <= MAX_LABEL or max(map(len, texts)) <= MAX_LABEL)


def _all_fit(texts: Collection[Any]) -> bool:
    """Whether texts need no conversion: none of a subclass, too long, or with lone surrogates."""
    if not TEXT.issuperset(map(type, texts)):
        if not _TEXT_OR_NONE.issuperset(map(type, texts)):
            return False
        texts = [text for text in texts if text is not None]
    joined = "".join(texts)
    return joined.isascii() and (len(joined) <= MAX_LABEL or max(map(len, texts)) <= MAX_LABEL)
