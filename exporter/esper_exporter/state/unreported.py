"""State of which nothing was reported yet: None where the schema has a default.

The schema's 0.0 means "not measured yet" and looks like a measured 0 afterwards. A run
that is aggregated here begins without values, so that the page shows only what was reported.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")


def unreported(kind: type[T], **known: Any) -> T:
    """A state object whose numbers and flags are None, but for those that are ``known``."""
    nothing: dict[str, None] = _nothing(cast(Hashable, kind))
    return kind(**{**nothing, **known})


@cache
def _nothing(kind: Any) -> dict[str, None]:
    return dict.fromkeys(numbers(kind))


@cache
def numbers(kind: Any) -> tuple[str, ...]:
    """The fields of a state class that default to a number or a flag."""
    return tuple(
        field.name
        for field in fields(kind)
        if field.default is not MISSING and isinstance(field.default, bool | int | float)
    )
