"""Which texts of a converted payload are plain, by the declaration of their field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from esper_exporter.contract.fields import Label
from esper_exporter.contract.plain_texts import fits_of


class Name(str):
    pass


class Part(msgspec.Struct):
    stage: str
    blueprint: str | None = None


class Whole(msgspec.Struct):
    first: str
    second: str
    note: str | None = None
    part: Part | None = None
    count: int = 0


class Numbers(msgspec.Struct):
    count: int
    shares: dict[int, float]


@pytest.mark.parametrize("hint", [int, float | None, Numbers, dict[int, float], tuple[float, int]])
def test_what_holds_no_texts_needs_no_check(hint: Any) -> None:
    assert fits_of(hint) is None


@pytest.mark.parametrize(
    ("hint", "value", "fits"),
    [
        (str, "a", True),
        (str, "x" * 256, True),
        (str, "x" * 257, False),
        (str, "é", False),
        (str, Name("a"), False),
        (str | None, None, True),
        (Part, Part("a"), True),
        (Part, Part("a", "b" * 256), True),
        (Part, Part("a", "b" * 257), False),
        (Part, Part(Name("a")), False),
        (Part, Part("a", Name("b")), False),
        (Part, Part("a", "\ud800"), False),
        (Whole, Whole("a", "b", "c", Part("d")), True),
        (Whole, Whole("a" * 200, "b" * 200, "c" * 200), True),
        (Whole, Whole("a" * 200, "b" * 257), False),
        (Whole, Whole("a", Name("b")), False),
        (Whole, Whole("a", "b", None, Part("é")), False),
        (Part | None, None, True),
        (dict[Label, float], {"a": 1.0}, True),
        (dict[Label, float], {"é": 1.0}, False),
        (dict[Label, str], {"a": "b"}, True),
        (dict[Label, str], {"a": "é"}, False),
        (dict[Label, str], {"é": "a"}, False),
        (dict[Label, str], {"a": Name("b")}, False),
        (dict[Label, str], {"a": "x" * 257}, False),
        (dict[Label, str], {"a": "x" * 200, "b": "x" * 200}, True),
        (dict[Label, str | None], {"a": None, "b": "x" * 257}, False),
        (dict[Label, str | None], {"a": None, "b": "x" * 256}, True),
        (dict[Label, Part], {"a": Part("b"), "c": Part("é")}, False),
        (dict[Label, dict[Label, float]], {"a": {"é": 1.0}}, False),
        (dict[str, int], {"x" * 257: 1}, False),
        (dict[str, str], {"a": Name("b")}, False),
        (dict[int, Part], {1: Part("b")}, True),
        (dict[int, Part], {1: Part("é")}, False),
        (tuple[str, ...], ("a", Name("b")), False),
        (tuple[Part, ...], (Part("a"), Part("é")), False),
        (tuple[tuple[str, float], ...], (("a", 1.0), ("b", 2.0)), True),
        (tuple[tuple[str, float], ...], (("a", 1.0), ("é", 2.0)), False),
        (tuple[tuple[str, str], ...], (("a", "b"), ("c", "é")), False),
        (tuple[float, str], (1.0, Name("a")), False),
        (tuple[float, str], (1.0, "a"), True),
    ],
)
def test_a_text_is_plain_as_a_short_ascii_str(hint: Any, value: Any, fits: bool) -> None:
    check = fits_of(hint)
    assert check is not None
    assert check(value) is fits
