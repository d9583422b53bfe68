"""The table of events: complete, and what a row lacks is said when the table is built."""

from __future__ import annotations

import re

import msgspec
import pytest

from esper_exporter.contract.event_table import (
    ALIASES,
    BY_NAME,
    TYPES,
    IncompleteEventType,
    build,
    canonical,
)
from esper_exporter.contract.event_type import EventType
from esper_exporter.state.aggregator import handler_of


class Payload(msgspec.Struct):
    loss: float | None = None


ROW = EventType("A", Payload, "apply_run.apply_trend")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((EventType("A", dict, "x.y"),), "A has no payload class"),  # type: ignore[arg-type]
        ((EventType("A", Payload, ""),), "A does not say who applies it"),
        ((EventType("A", Payload, "x.y", ("B",)),), "A has aliases and no identity"),
        ((EventType("A", Payload, "x.y", ("B",), ("gain",)),), "['gain'], which Payload lacks"),
        ((ROW, ROW), "A is in the table of events twice"),
        ((ROW, EventType("B", Payload, "x.y", ("A",), ("loss",))), "A is in the table"),
    ],
)
def test_an_incomplete_row_is_an_error_that_says_what_is_missing(
    rows: tuple[EventType, ...], sentence: str
) -> None:
    with pytest.raises(IncompleteEventType, match=re.escape(sentence)):
        build(rows)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (EventType("A", Payload, "apply_run.apply_nothing"), "apply_run.apply_nothing, which"),
        (EventType("A", Payload, "apply_none.apply"), "apply_none.apply, which does not exist"),
    ],
)
def test_a_row_that_the_state_cannot_apply_is_an_error_that_says_so(
    row: EventType, sentence: str
) -> None:
    with pytest.raises(IncompleteEventType, match=re.escape(sentence)):
        handler_of(row)


def test_every_row_has_a_function_that_applies_it() -> None:
    assert all(callable(handler_of(row)) for row in TYPES.values())


def test_an_event_is_found_by_each_of_its_names() -> None:
    assert BY_NAME["PPO_UPDATE_COMPLETED"] is TYPES["TAMIYO_POLICY_UPDATE"]
    assert {canonical(name) for name in BY_NAME} == set(TYPES)
    assert ALIASES["GOVERNOR_ROLLBACK"] == "TOLARIA_ROLLBACK"
