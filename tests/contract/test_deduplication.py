"""A happening under both its names counts once; an event delivered twice is recognised."""

from __future__ import annotations

import math
from typing import Any

import pytest

from contract.border import like, now
from esper_exporter.contract.deduplication import MAX_IDS, DualEmitFilter, EventIdFilter
from esper_exporter.contract.event_table import ALIASES
from esper_exporter.contract.events import Event
from esper_exporter.contract.reader import read

ROLLBACK = {"env_id": 0, "device": "cpu", "reason": "nan", "loss_at_panic": math.nan}


def event(name: str, **data: Any) -> Event:
    old = {new: old for old, new in ALIASES.items()}.get(name, name)
    if old == "GOVERNOR_ROLLBACK":
        return read({"event_type": name, "data": {**ROLLBACK, **data}}, now)
    return read(like(old, {"event_type": name}, **data), now)


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
@pytest.mark.parametrize("swapped", [False, True])
def test_the_second_name_of_a_happening_is_a_duplicate(old: str, new: str, swapped: bool) -> None:
    first, second = (new, old) if swapped else (old, new)
    known = DualEmitFilter()
    assert [known.is_duplicate(event(name)) for name in (first, second)] == [False, True]


def test_the_same_name_again_is_another_happening() -> None:
    known = DualEmitFilter()
    assert not known.is_duplicate(event("PPO_UPDATE_COMPLETED"))
    assert not known.is_duplicate(event("PPO_UPDATE_COMPLETED"))


def test_each_arrival_is_used_up_by_one_counterpart() -> None:
    known = DualEmitFilter()
    names = ["PPO_UPDATE_COMPLETED"] * 2 + ["TAMIYO_POLICY_UPDATE"] * 3
    assert [known.is_duplicate(event(name)) for name in names] == [False, False, True, True, False]


def test_an_update_that_is_not_a_number_is_recognised() -> None:
    known = DualEmitFilter()
    # Two objects: a tuple takes one and the same NaN for equal.
    assert not known.is_duplicate(event("PPO_UPDATE_COMPLETED", policy_loss=float("nan")))
    assert known.is_duplicate(event("TAMIYO_POLICY_UPDATE", policy_loss=float("nan")))


@pytest.mark.parametrize("other", [{"batch": 9}, {"ppo_updates_count": 2}, {"entropy": 8.0}])
def test_another_update_under_the_other_name_is_no_duplicate(other: dict[str, Any]) -> None:
    known = DualEmitFilter()
    assert not known.is_duplicate(event("PPO_UPDATE_COMPLETED"))
    assert not known.is_duplicate(event("TAMIYO_POLICY_UPDATE", **other))


def test_only_the_last_1024_wait_for_their_other_name() -> None:
    known = DualEmitFilter()
    for batch in range(1025):
        known.is_duplicate(event("PPO_UPDATE_COMPLETED", batch=batch))
    assert not known.is_duplicate(event("TAMIYO_POLICY_UPDATE", batch=0))
    assert known.is_duplicate(event("TAMIYO_POLICY_UPDATE", batch=1024))


def test_an_event_delivered_twice_is_seen_the_second_time() -> None:
    known = EventIdFilter()
    assert [known.seen("a"), known.seen("b"), known.seen("a")] == [False, False, True]


def test_only_the_last_ids_are_remembered() -> None:
    known = EventIdFilter()
    for number in range(MAX_IDS + 1):
        known.seen(str(number))
    assert known.seen(str(MAX_IDS))
    assert not known.seen("0")
