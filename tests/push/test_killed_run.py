"""A pushed training that is killed under ``esper-exporter run``: its receiver has the end."""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path

import pytest

from support.programs import wait_until
from support.pushed_run import TRAINER, trainer, wrapped
from support.remote_write import Answer, FakeReceiver, Key, fake_receiver

LATCH = "esper_tamiyo_head_nonfinite_latched"


def series(receiver: FakeReceiver) -> dict[Key, list[tuple[int, float]]]:
    """The samples of each series in the order in which they came."""
    found: dict[Key, list[tuple[int, float]]] = {}
    for request in receiver.taken:
        for each in request.timeseries:
            labels = tuple(sorted((label.name, label.value) for label in each.labels))
            found.setdefault(labels, []).extend((s.timestamp, s.value) for s in each.samples)
    return found


def is_stale(number: float) -> bool:
    return struct.pack("<d", number) == struct.pack("<Q", 0x7FF0000000000002)


def test_sigkill_reaches_the_receiver_of_a_run_that_nobody_scrapes(tmp_path: Path) -> None:
    command = (sys.executable, TRAINER, "wait", "night-7")
    with (
        fake_receiver() as receiver,
        wrapped(tmp_path, receiver.url, *command, ESPER_EXPORTER_LINGER="3600") as running,
    ):
        receiver.wait_for(lambda: receiver.values(LATCH, head="op", kind="nan"), "a page", 120)
        pushed = series(receiver).keys()
        child = trainer(running.pid)
        os.kill(child, signal.SIGKILL)
        assert running.wait(180) == -signal.SIGKILL, "without waiting for a scraper"
        found = series(receiver)
        assert receiver.values("esper_run_failed", reason="killed")[-2][1] == 1.0
        assert receiver.values("esper_run_active")[-2][1] == 0.0
        assert receiver.values(LATCH, head="op", kind="nan")[-2][1] == 1.0
    assert {dict(labels)["instance"].rpartition(":")[2] for labels in found} == {str(child)}
    # Nothing stays as if it still were. What the exporter measures of itself is not in the share.
    ended = {labels: samples for labels, samples in found.items() if is_stale(samples[-1][1])}
    of_exporter = {
        k for k in pushed if dict(k)["__name__"].startswith(("python_", "esper_exporter"))
    }
    assert pushed - of_exporter <= ended.keys()
    for samples in found.values():
        assert samples == sorted(samples, key=lambda each: each[0])


@pytest.mark.slow
def test_what_a_killed_training_could_not_send_goes_before_its_end(tmp_path: Path) -> None:
    command = (sys.executable, TRAINER, "wait", "night-7")
    with fake_receiver() as receiver:
        receiver.answer = Answer(503)
        with wrapped(tmp_path, receiver.url, *command, interval="1") as running:
            state = tmp_path / "state"
            wait_until(lambda: len(list(state.rglob("*.snappy"))) > 2, "pages wait", 120.0)
            os.kill(trainer(running.pid), signal.SIGKILL)
            receiver.answer = Answer(204)
            assert running.wait(180) == -signal.SIGKILL
        active = receiver.values("esper_run_active")
        failed = receiver.values("esper_run_failed", reason="killed")
    assert [value for _, value in active[:3]] == [1.0, 1.0, 1.0]
    assert active[-2][1] == 0.0
    assert failed[-2][1] == 1.0
    assert active == sorted(active, key=lambda each: each[0])
    assert list(state.rglob("*.snappy")) == []


@pytest.mark.slow
def test_a_training_that_a_script_ran_is_known_to_have_died(tmp_path: Path) -> None:
    script = f"{sys.executable} {TRAINER} wait night-7; echo next; exit 0"
    with (
        fake_receiver() as receiver,
        wrapped(tmp_path, receiver.url, "sh", "-c", script, ESPER_EXPORTER_LINGER="0") as running,
    ):
        receiver.wait_for(lambda: receiver.values(LATCH, head="op"), "a page", 120)
        os.kill(trainer(running.pid), signal.SIGKILL)
        assert running.wait(180) == 0
        assert receiver.values("esper_run_failed", reason="died")[-2][1] == 1.0


@pytest.mark.slow
def test_an_end_that_the_training_pushed_itself_is_not_pushed_again(tmp_path: Path) -> None:
    command = (sys.executable, TRAINER, "wait", "night-7")
    with (
        fake_receiver() as receiver,
        wrapped(tmp_path, receiver.url, *command, ESPER_EXPORTER_LINGER="0") as running,
    ):
        receiver.wait_for(lambda: receiver.values(LATCH, head="op"), "a page", 120)
        os.kill(trainer(running.pid), signal.SIGTERM)
        running.wait(180)
        failed = receiver.values("esper_run_failed", reason="signal")
    assert [is_stale(number) for _, number in failed[-2:]] == [False, True]
    assert sum(is_stale(number) for _, number in failed) == 1
