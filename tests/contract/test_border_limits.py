"""Faults at the border: NaN flags are kept, values unaltered, reading takes no seconds."""

from __future__ import annotations

import time
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contract.border import like, now, update, without
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import Rejected

FLAGS = {"tempo": True}


class Raising(SimpleNamespace):
    """A payload of which one attribute raises."""

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "bad"):
            raise RuntimeError(name)
        return object.__getattribute__(self, name)


class BrokenZone(tzinfo):
    def utcoffset(self, dt: datetime | None) -> Any:
        raise RuntimeError


def flagged(bad: str) -> Any:
    event = update(head_nan_detected=FLAGS)
    event["data"] = Raising(**event["data"], bad=bad)
    return event


@pytest.mark.parametrize("field", ["slot_id", "group_id"])
def test_an_update_without_a_place_still_reports_its_nan(field: str) -> None:
    with pytest.raises(Rejected) as caught:
        read(like("PPO_UPDATE_COMPLETED", {field: "x" * 300}, head_nan_detected=FLAGS), now)
    assert caught.value.event is not None
    assert caught.value.event.data.head_nan_detected == FLAGS


def test_an_optional_attribute_that_raises_costs_only_itself() -> None:
    event = read(flagged("value_mean"), now)
    assert event.data.head_nan_detected == FLAGS
    assert event.ignored == ("value_mean",)


def test_a_required_attribute_that_raises_leaves_the_nan_to_salvage() -> None:
    with pytest.raises(Rejected) as caught:
        read(flagged("policy_loss"), now)
    assert caught.value.event is not None
    assert caught.value.event.data.head_nan_detected == FLAGS


def test_a_broken_time_zone_does_not_lose_the_nan() -> None:
    broken = {"timestamp": datetime(2026, 1, 1, tzinfo=BrokenZone())}
    event = read(like("PPO_UPDATE_COMPLETED", broken, head_nan_detected=FLAGS), now)
    assert event.data.head_nan_detected == FLAGS
    assert event.ignored == ("timestamp",)


def test_a_refused_update_without_a_fault_has_nothing_to_salvage() -> None:
    with pytest.raises(Rejected) as caught:
        read(without(update(), "policy_loss"), now)
    assert caught.value.event is None


def test_diagnostics_of_any_width_are_read_at_once() -> None:
    wide = [[[[1] * 50] * 50] * 60] * 10
    begun = time.thread_time()
    event = read(like("NUMERICAL_INSTABILITY_DETECTED", stability={"a": wide, "b": 1}), now)
    assert time.thread_time() - begun < 0.5
    assert "stability" in event.ignored


def test_a_numpy_number_of_a_diagnostic_stays_a_number() -> None:
    reported = {"one": np.int64(1), "up": np.bool_(True)}
    got = read(like("NUMERICAL_INSTABILITY_DETECTED", stability=reported), now).data.stability
    assert {key: (value, type(value)) for key, value in got.items()} == {
        "one": (1, int),
        "up": (True, bool),
    }


def test_an_ignored_field_is_logged_once() -> None:
    seeds = {slot: {"stage": "TRAINING", "alpha": "no"} for slot in ("r0c0", "r0c1")}
    assert read(like("EPOCH_COMPLETED", seeds=seeds), now).ignored == ("seeds.alpha",)


@pytest.mark.parametrize("line", ['{"a": 1}'.encode("utf-16"), b'{"a": "\xed\xa0\x80"}'])
def test_what_is_not_utf_8_is_refused(line: bytes) -> None:
    with pytest.raises(Rejected):
        parse_line(line)


@pytest.mark.parametrize(
    ("seed", "kept"), [(2**64 - 1, True), (2**64, False), (-(2**63), True), (-(2**63) - 1, False)]
)
def test_a_seed_that_no_column_of_the_journal_holds_is_left_out(seed: int, kept: bool) -> None:
    event = read(like("SEED_GERMINATED", rng_seed=seed), now)
    assert not isinstance(event, Rejected)
    assert event.data.rng_seed == (seed if kept else None)
