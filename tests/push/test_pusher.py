"""A run that nobody scrapes reaches its receiver, and the training never waits for that."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from support.command import environment
from support.pages import value
from support.ports import free_port
from support.remote_write import Answer, FakeReceiver, fake_receiver
from support.trainer import STARTED, UPDATE, latching

TESTS = Path(__file__).parents[1]
LATCH = "esper_tamiyo_head_nonfinite_latched"
HOUR = 3600.0


def new(receiver: FakeReceiver | str, **arguments: Any) -> Exporter:
    url = receiver if isinstance(receiver, str) else receiver.url
    settings = {"run_id": "night-7", "push_interval": HOUR, "push_labels": "instance=here"}
    return Exporter(port="off", share="off", push=url, **{**settings, **arguments})


def is_stale(number: float) -> bool:
    return struct.pack("<d", number) == struct.pack("<Q", 0x7FF0000000000002)


def test_a_run_shorter_than_any_interval_arrives_with_its_end() -> None:
    with fake_receiver() as receiver:
        with new(receiver) as exporter:
            exporter.emit(STARTED)
            exporter.emit(latching())
        latch = receiver.values(LATCH, head="op", kind="nan")
        finished = receiver.values("esper_run_finished", run_id="night-7")
    assert latch[-2][1] == 1.0
    assert finished[-2][1] == 1.0
    for samples in (latch, finished):
        ended_at, end = samples[-1]
        assert is_stale(end)
        assert ended_at - samples[-2][0] == 2 * HOUR * 1000
        assert [is_stale(number) for _, number in samples[:-1]] == [False] * (len(samples) - 1)


def test_an_exception_arrives_with_its_reason() -> None:
    with fake_receiver() as receiver:
        with pytest.raises(MemoryError), new(receiver) as exporter:
            exporter.emit(STARTED)
            raise MemoryError
        failed = receiver.values("esper_run_failed", reason="oom")
    assert failed[-2][1] == 1.0


def test_a_latch_is_sent_at_once() -> None:
    with fake_receiver() as receiver, new(receiver) as exporter:
        exporter.emit(STARTED)
        receiver.wait_for(lambda: receiver.taken, "the first page")
        exporter.emit(latching())
        receiver.wait_for(
            lambda: 1.0 in [number for _, number in receiver.values(LATCH, head="op")],
            "the latch, long before the interval is over",
        )


def test_every_sample_has_the_labels_of_the_sender() -> None:
    with fake_receiver() as receiver:
        with new(receiver, push_labels="cluster=north,job=train,instance=a:1"):
            pass
        for series in receiver.taken[0].timeseries:
            labels = {label.name: label.value for label in series.labels}
            assert (labels["cluster"], labels["job"], labels["instance"]) == (
                "north", "train", "a:1",
            )  # fmt: skip


def test_what_failed_is_tried_again_in_order_and_retry_after_is_kept() -> None:
    with fake_receiver() as receiver:
        receiver.answers = [Answer(503), Answer(429, {"Retry-After": "2"}), Answer(500)]
        with new(receiver) as exporter:
            exporter.emit(STARTED)
            receiver.wait_for(lambda: receiver.taken, "the page, in the end")
            page = exporter.render().decode()
        asked = [when for when, _ in receiver.asked]
        times = [each.timeseries[0].samples[0].timestamp for each in receiver.taken]
    assert asked[2] - asked[1] >= 2.0
    assert times == sorted(times)
    failures = "esper_exporter_push_failures_total"
    assert value(page, failures, reason="server") == 2.0
    assert value(page, failures, reason="throttled") == 1.0
    assert value(page, failures, reason="timeout") == 0.0


def test_what_is_refused_for_good_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with fake_receiver() as receiver:
        receiver.answers = [Answer(400, body=b"out of order sample")]
        with new(receiver, push_interval=1) as exporter:
            exporter.emit(STARTED)
            receiver.wait_for(lambda: receiver.taken, "the page after the refused one")
            page = exporter.render().decode()
    dropped = value(page, "esper_exporter_push_samples_dropped_total", reason="refused")
    assert dropped and dropped > 100
    assert [each for each in caplog.messages if "out of order sample" in each]


def test_what_was_sent_is_on_the_page() -> None:
    with fake_receiver() as receiver, new(receiver) as exporter:
        before = exporter.render().decode()
        receiver.wait_for(lambda: receiver.taken, "the first page")
        sent = float(len(receiver.taken[0].timeseries))
        deadline = time.monotonic() + 30
        while value(exporter.render().decode(), "esper_exporter_push_samples_total") != sent:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        page = exporter.render().decode()
    assert value(before, "esper_exporter_push_samples_total") == 0.0
    assert value(before, "esper_exporter_push_last_success_timestamp_seconds") is None
    assert value(page, "esper_exporter_push_backlog_bytes") == 0.0
    success = value(page, "esper_exporter_push_last_success_timestamp_seconds")
    assert success is not None and abs(success - time.time()) < 60


def test_without_push_its_metrics_are_absent() -> None:
    with Exporter(port="off", share="off") as exporter:
        assert "esper_exporter_push" not in exporter.render().decode()


def test_a_receiver_that_never_answers_costs_the_training_nothing() -> None:
    with fake_receiver() as receiver:
        receiver.answer = Answer(204, seconds=HOUR)
        exporter = new(receiver, push_interval=1, push_linger=0.5)
        exporter.start()
        exporter.emit(STARTED)
        receiver.wait_for(lambda: receiver.asked, "a request that gets no answer")
        begun = time.process_time()
        for number in range(200):
            exporter.emit({**UPDATE, "event_id": f"u{number}"})
        assert time.process_time() - begun < 5.0
        begun = time.monotonic()
        exporter.close()
        assert time.monotonic() - begun < 20.0, "0.5 s, on a machine that does nothing else"


def test_a_failed_end_waits_on_disk_for_the_next_process(tmp_path: Path) -> None:
    port = free_port()
    with new(f"http://127.0.0.1:{port}/", state_dir=tmp_path, push_linger=0) as exporter:
        exporter.emit(STARTED)
    assert list(tmp_path.rglob("*.snappy"))
    with fake_receiver() as receiver:
        with new(receiver, state_dir=tmp_path):
            pass
        assert list(tmp_path.rglob("*.snappy")), "it was meant for another receiver"


def process(how: str, receiver: FakeReceiver, state: Path, **variables: str) -> Any:
    return subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "trainer.py"), how, "night-7"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(
            PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
            ESPER_EXPORTER_PORT="off",
            ESPER_EXPORTER_SHARE="off",
            ESPER_EXPORTER_STATE_DIR=str(state),
            ESPER_EXPORTER_PUSH=receiver.url,
            ESPER_EXPORTER_PUSH_INTERVAL="1",
            ESPER_EXPORTER_PUSH_LINGER="60",
            **variables,
        ),
    )


ENDS = {
    "return": ("esper_run_finished", ""),
    "raise": ("esper_run_failed", "nonfinite"),
    "oom": ("esper_run_failed", "oom"),
    "interrupt": ("esper_run_failed", "signal"),
    "handled": ("esper_run_failed", "signal"),
    "wait": ("esper_run_failed", "signal"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_the_receiver_gets_the_end_however_the_process_ends(tmp_path: Path, how: str) -> None:
    name, reason = ENDS[how]
    with fake_receiver() as receiver:
        running = process(how, receiver, tmp_path)
        if how in ("wait", "handled"):
            assert running.stdout.readline() and running.stdout.readline() == "waiting\n"
            running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
        found = receiver.values(name, **({"reason": reason} if reason else {}))
        assert found and found[-2][1] == 1.0 and is_stale(found[-1][1])
        assert receiver.values(LATCH, head="op", kind="nan")[-2][1] == 1.0
    assert list(tmp_path.rglob("*.snappy")) == []


@pytest.mark.slow
def test_what_a_killed_process_could_not_send_the_next_one_sends(tmp_path: Path) -> None:
    with fake_receiver() as receiver:
        receiver.answer = Answer(503)
        running = process("wait", receiver, tmp_path)
        deadline = time.monotonic() + 120
        # Three of them: the latch of the first second is in one that is complete.
        while len(list(tmp_path.rglob("*.snappy"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.kill()
        running.communicate(timeout=60)
        assert receiver.taken == []
        waiting = len(list(tmp_path.rglob("*.snappy")))
        receiver.answer = Answer(204)
        following = process("return", receiver, tmp_path)
        following.communicate(timeout=120)
        of_instance = {
            label.value
            for request in receiver.taken
            for label in request.timeseries[0].labels
            if label.name == "instance"
        }
        times = [request.timeseries[0].samples[0].timestamp for request in receiver.taken]
    assert len(of_instance) == 2
    assert times == sorted(times)
    assert len(receiver.taken) >= waiting
    assert receiver.values(LATCH, head="op", kind="nan")
    assert list(tmp_path.rglob("*.snappy")) == []


@pytest.mark.slow
def test_a_forked_child_neither_pushes_nor_keeps_the_backlog(tmp_path: Path) -> None:
    """Nor does it end its parent's series."""
    with fake_receiver() as receiver, new(receiver, state_dir=tmp_path) as exporter:
        exporter.emit(STARTED)
        receiver.wait_for(lambda: receiver.taken, "the first page")
        child = os.fork()
        if child == 0:
            exporter.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(receiver.taken) == 1
    assert receiver.values("esper_run_finished")[-2][1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"push": "receiver:9090"}, "http:// or https://"),
        ({"push": "http://x/", "push_labels": "cluster"}, "push_labels must be NAME=VALUE"),
        ({"push": "http://x/", "push_labels": "__name__=x"}, "push_labels must be NAME=VALUE"),
        ({"push": "http://x/", "push_interval": 0.1}, "push_interval must be at least 1 s"),
        ({"push": "http://x/", "push_max_age": 1}, "push_max_age must be at least 60 s"),
        ({"push": "http://x/", "push_max_bytes": 10}, "push_max_bytes must be at least 1 MiB"),
        ({"push": "http://x/", "push_linger": -1}, "push_linger must be a number of seconds"),
    ],
)
def test_a_wrong_setting_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exporter(port="off", **arguments)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esper_exporter.push.options.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install cramjam protobuf"):
        Exporter(port="off", push="http://x/")
