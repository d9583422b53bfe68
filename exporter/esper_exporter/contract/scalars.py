"""Single values at the border: what is taken as a number, a flag or a text, and what is not.

Numbers are ``int``, ``float`` and whatever registers as ``numbers.Real`` (numpy's scalars do).
Tensors do not: converting one could wait for a device, so they are refused, as are numbers in
text form. Every converter takes ``(value, path, ignored)``, returns a plain Python value and
raises ``WrongType`` or ``InvalidValue``; ``path`` and ``ignored`` are for composite values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import Any

from numpy import bool_

_FLOAT32 = struct.Struct("f")

MAX_LABEL = 256
"""Characters of a text that names something: a slot, a stage, a reason."""

MAX_TEXT = 4096
"""Characters kept of free text: a message, a detail."""

Converter = Callable[[Any, str, list[str]], Any]


class WrongType(Exception):
    """The value is of another type; the message says what was expected and what came."""


class InvalidValue(Exception):
    """The type is right, the value cannot be. ``fatal``: in an optional field too, because the
    event cannot be attributed to the right thing without it."""

    def __init__(self, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


def wrong(expected: str, value: object) -> WrongType:
    return WrongType(f"expected {expected}, got {type(value).__name__[:64]}")


def real(value: Any, path: str, ignored: list[str]) -> float:
    """A float; NaN and infinities are kept. Integers beyond the floats are invalid."""
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is not bool and kind is not bool_ and issubclass(kind, Real):
        try:
            if issubclass(kind, float):
                return float.__float__(value)
            if issubclass(kind, int):
                return float(int.__int__(value))
            return float(value)
        except OverflowError:
            raise InvalidValue("number out of range") from None
    if kind is Decimal:
        return float(value)
    raise wrong("a number", value)


def real_or_text(value: Any, path: str, ignored: list[str]) -> float:
    """A float, or the text that the real system's file output writes for a numpy float32.

    The text is the shortest that identifies a float32, so it is rounded to one: the result is
    then bit for bit the number that a live event carries.
    """
    if type(value) is not str:
        return real(value, path, ignored)
    if len(value) > 32 or not value.isascii():
        raise wrong("a number", value)
    try:
        packed: float = _FLOAT32.unpack(_FLOAT32.pack(float(value)))[0]
    except (ValueError, OverflowError):
        raise wrong("a number", value) from None
    return packed


def flag(value: Any, path: str, ignored: list[str]) -> bool:
    """A bool, a numpy bool, or the integers 0 and 1."""
    if value is True or value is False:
        return value
    kind = type(value)
    if kind is bool_:
        return bool(value)
    if issubclass(kind, Integral):
        number = int.__int__(value) if issubclass(kind, int) else int(value)
        if number == 0 or number == 1:
            return number == 1
    raise wrong("a flag", value)


def whole(low: int, high: int, fatal: bool = False) -> Converter:
    """Converter for integers within ``low..high``; an integral float is taken, a bool is not."""

    def convert(value: Any, path: str, ignored: list[str]) -> int:
        kind = type(value)
        if kind is int:
            number: int = value
        elif kind is bool or kind is bool_ or not issubclass(kind, Real):
            raise wrong("an integer", value)
        elif issubclass(kind, int):
            number = int.__int__(value)
        elif issubclass(kind, Integral):
            number = int(value)
        else:
            rough = real(value, path, ignored)
            if not rough.is_integer():
                raise wrong("an integer", value)
            number = int(rough)
        if low <= number <= high:
            return number
        raise InvalidValue(f"integer out of range {low}..{high}", fatal)

    return convert


def string(value: Any) -> str:
    """A plain ``str``: of a subclass the text, of an enumeration's member the value or the name."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, Enum):
        inner = value.value
        return inner if type(inner) is str else str.__str__(value.name)
    if issubclass(kind, str):
        return str.__str__(value)
    raise wrong("a text", value)


def encodable(text: str) -> str:
    """The text with lone surrogates replaced by ``?``: whatever leaves us is valid UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


_STORED: tuple[Any, ...] = (
    *(date.year, date.month, date.day),
    *(datetime.hour, datetime.minute, datetime.second, datetime.microsecond),
)
_ZONE: Any = datetime.tzinfo
_FOLD: Any = datetime.fold


def moment(value: Any, path: str, ignored: list[str]) -> datetime:
    """A plain aware datetime in UTC, from a datetime or ISO text; without a zone it is UTC.

    Of a subclass only what the base class stores is used, so no later use of it calls foreign
    code. Times before 1970 are invalid.
    """
    kind = type(value)
    if kind is str:
        found = datetime.fromisoformat(value)
    elif kind is datetime:
        found = value
    elif issubclass(kind, datetime):
        found = datetime(*[stored.__get__(value) for stored in _STORED])
        found = found.replace(tzinfo=_ZONE.__get__(value), fold=_FOLD.__get__(value))
    else:
        raise wrong("a time", value)
    zone = found.tzinfo
    if zone is not UTC:
        # A foreign zone is asked once, here.
        found = found.replace(tzinfo=UTC) if zone is None else found.astimezone(UTC)
    if found.year < 1970:
        raise InvalidValue("a time before 1970")
    return found


def name(fatal: bool = False) -> Converter:
    """Converter for a text that names something, at most 256 characters long."""

    def convert(value: Any, path: str, ignored: list[str]) -> str:
        text = value if type(value) is str else string(value)
        if len(text) <= MAX_LABEL:
            return text if text.isascii() else encodable(text)
        raise InvalidValue(f"longer than {MAX_LABEL} characters", fatal)

    return convert


def free_text(value: Any, path: str, ignored: list[str]) -> str:
    """A text of any length, cut at 4096 characters."""
    text = value if type(value) is str else string(value)
    return encodable(text[:MAX_TEXT])
