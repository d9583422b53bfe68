"""How the chaos trial judges: each fault in one message, no other, and no sample lost."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from benchmarks.chaos.__main__ import faults_seconds
from benchmarks.chaos.checks import gaps
from benchmarks.chaos.faults import Fault, faults
from benchmarks.chaos.messages import Message, Reported, judge, longest_silence
from benchmarks.chaos.schedule import schedule

ROOT = Path(__file__).parents[1]
NAN = {"alertname": "EsperHeadNonFiniteLatched", "run_id": "r"}
DOWN = {"alertname": "EsperAgentDown", "instance": "n"}


def message(at: float, *firing: dict[str, str], receiver: str = "on-call") -> Message:
    return Message(at, receiver, tuple({**labels, "cluster": "chaos"} for labels in firing))


def test_a_fault_that_is_sent_once_is_right() -> None:
    fault = Reported(10.0, [NAN])
    assert judge([message(25.0, NAN)], [fault]) == []
    assert (fault.seconds, fault.messages, fault.wrong) == (15.0, 1, [])


@pytest.mark.parametrize("times", [(), (20.0, 30.0)])
def test_a_fault_that_is_not_sent_or_sent_twice_is_wrong(times: tuple[float, ...]) -> None:
    fault = Reported(10.0, [NAN])
    judge([message(at, NAN) for at in times], [fault])
    assert len(fault.wrong) == 1


def test_a_message_about_nothing_that_was_done_is_false() -> None:
    early, other = message(5.0, NAN), message(20.0, {**NAN, "run_id": "steady"})
    assert judge([early, other], [Reported(10.0, [NAN])]) == [early, other]


def test_what_nobody_reads_and_what_ends_is_no_message() -> None:
    silent = [message(20.0, NAN, receiver="nobody"), message(20.0)]
    fault = Reported(10.0, [])
    assert judge(silent, [fault]) == []
    assert (fault.messages, fault.wrong) == (0, [])


def test_a_message_is_about_the_newest_fault_that_wants_it() -> None:
    first, second = Reported(10.0, [DOWN]), Reported(100.0, [DOWN, NAN])
    judge([message(20.0, DOWN), message(120.0, DOWN), message(130.0, NAN)], [first, second])
    assert (first.seconds, second.seconds) == (10.0, 30.0)
    assert (first.wrong, second.wrong) == ([], [])


def test_the_silence_of_the_dead_mans_switch_counts_from_the_beginning_to_the_end() -> None:
    beats = [message(at, receiver="dead-mans-switch") for at in (70.0, 130.0, 400.0)]
    assert longest_silence(beats, 0.0, 410.0) == 270.0
    assert longest_silence([], 0.0, 410.0) == 410.0


def test_a_gap_within_an_outage_is_excused_and_one_beside_it_is_not() -> None:
    times = [0.0, 15.0, 100.0, 115.0, 200.0]
    assert gaps(times, 40.0, [(20.0, 90.0)]) == [(115.0, 200.0)]


def fault(name: str, seconds: float, *touches: str) -> Fault:
    return Fault(name, ((0, lambda: None), (seconds, lambda: None)), touches=touches)


def test_faults_come_one_after_the_other_where_there_is_time() -> None:
    chosen = [fault(str(n), 100.0, "a") for n in range(5)]
    plan = schedule(chosen, 3600.0, seed=1)
    for (start, one), (then, _) in pairwise(plan):
        assert then >= start + one.seconds + 30.0
    assert plan == schedule(chosen, 3600.0, seed=1)


def test_with_little_time_only_faults_that_touch_different_things_overlap() -> None:
    chosen = [fault("a1", 100.0, "a"), fault("a2", 100.0, "a"), fault("b", 200.0, "b")]
    plan = schedule(chosen, 300.0, seed=2)
    starts = {one.name: start for start, one in plan}
    assert abs(starts["a1"] - starts["a2"]) >= 130.0
    assert all(start + one.seconds <= 300.0 for start, one in plan)
    with pytest.raises(ValueError, match="too few"):
        schedule(chosen, 190.0, seed=2)


def test_all_faults_find_room_in_the_time_that_the_makefile_gives_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    given = re.search(r"ARGS='--minutes (\d+) --interval (\d+)'", makefile)
    assert given is not None
    seconds = faults_seconds(float(given[1]), float(given[2]))
    for seed in range(1, 4):
        plan = schedule(faults(MagicMock()), seconds, seed)
        assert len(plan) == 15
        outage = next(at for at, one in plan if one.name.startswith("Alertmanager is away"))
        for at, other in plan:
            if not {*other.touches} & {"killed", "vanished", "raises", "nan-and-killed", "c"}:
                continue
            assert at > outage + 120.0 or at + other.seconds + other.rest < outage
