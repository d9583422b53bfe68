"""One line of an event file."""

from __future__ import annotations

import math

import pytest

from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.rejection import Rejected
from support.recordings import NAMES, telemetry_lines


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_line_is_an_event(name: str) -> None:
    assert all("event_type" in parse_line(line) for line in telemetry_lines(name))


def test_bare_nan_and_infinity_are_floats() -> None:
    found = parse_line(b'{"a": NaN, "b": Infinity, "c": -Infinity}')
    assert math.isnan(found["a"])
    assert (found["b"], found["c"]) == (math.inf, -math.inf)


def test_text_and_bytes_are_the_same() -> None:
    assert parse_line('{"a": "é"}') == parse_line('{"a": "é"}'.encode()) == {"a": "é"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"garbage",
        b'{"a": 1',
        b"[1]",
        b"null",
        b"5",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a": ' + b"1" * 5000 + b"}" + b"x",
        b'{"a": "' + b"x" * (8 * 1024 * 1024) + b'"}',
    ],
    ids=lambda line: f"{line[:12]!r}.{len(line)}",
)
def test_what_is_no_json_object_is_refused(line: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(line)
    assert caught.value.reason == "malformed_json"
