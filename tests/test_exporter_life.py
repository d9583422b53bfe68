"""An exporter's life: started and closed in any order, any number of times, leaving nothing."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from esper_exporter import Exporter
from support.command import environment
from support.pages import value
from support.programs import wait_until
from support.recordings import telemetry_lines
from support.served import page_seen
from support.threads import exporter_threads
from support.trainer import latching

STARTED = telemetry_lines("run1")[0]
LATCH = "esper_tamiyo_head_nonfinite_latched"
FINISHED = "esper_run_finished"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter(port=0)
    yield made
    made.close()


def page(exporter: Exporter) -> str:
    return exporter.render().decode()


def test_starting_and_closing_twice_is_once(exporter: Exporter) -> None:
    exporter.start()
    port = exporter.port
    exporter.start()
    assert exporter.port == port
    exporter.close()
    exporter.close()
    assert exporter.port is None


def test_closing_what_never_started_is_harmless() -> None:
    Exporter(port=0).close()


def test_a_closed_run_has_finished_and_continues_when_it_is_started_again(
    exporter: Exporter,
) -> None:
    exporter.emit_line(STARTED)
    assert value(page(exporter), FINISHED) == 0.0
    exporter.close()
    assert value(page(exporter), FINISHED) == 1.0
    exporter.start()
    assert value(page(exporter), FINISHED) == 0.0
    assert value(page(exporter), "esper_run_end_timestamp_seconds") is None


def test_a_page_that_was_captured_before_a_latch_does_not_show_it_to_anybody() -> None:
    """The state is held by another thread when the scraper's page is rendered."""
    exporter = Exporter(port=0, state_dir="off")
    exporter.emit_line(STARTED)
    page(exporter)
    exporter.emit(latching())
    asked = time.monotonic()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(30)

    holder = threading.Thread(target=exporter._lock.submit, args=(hold,))
    holder.start()
    entered.wait(30)
    try:
        old = page(exporter)
        exporter.served(page_seen(asked, seconds=time.monotonic() - asked))
    finally:
        leave.set()
        holder.join()
    assert value(old, LATCH, head="op", kind="nan") == 0.0
    assert exporter._parts.tracker.pending
    asked = time.monotonic()
    assert value(page(exporter), LATCH, head="op", kind="nan") == 1.0
    exporter.served(page_seen(asked))
    assert not exporter._parts.tracker.pending


def test_what_failed_stays_failed(exporter: Exporter) -> None:
    exporter.emit_line(STARTED)
    with pytest.raises(ValueError, match="of mine"), exporter:
        raise ValueError("of mine")
    exporter.start()
    exporter.close()
    shown = page(exporter)
    assert value(shown, "esper_run_failed", reason="exception") == 1.0
    assert value(shown, FINISHED) == 0.0


def test_closed_while_an_exception_is_on_its_way_it_has_failed(exporter: Exporter) -> None:
    exporter.emit_line(STARTED)
    with pytest.raises(MemoryError):
        try:
            raise MemoryError
        finally:
            exporter.close()
    assert value(page(exporter), "esper_run_failed", reason="oom") == 1.0


def test_without_a_run_there_is_no_end(exporter: Exporter) -> None:
    exporter.close()
    assert value(page(exporter), FINISHED) is None


def test_the_hooks_are_put_back() -> None:
    before = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM)
    one, other = Exporter(port=0), Exporter(port=0)
    with one, other:
        now = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM)
        assert all(ours is not theirs for ours, theirs in zip(now, before, strict=True))
    after = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM)
    assert after == before


def test_a_hundred_starts_leave_no_thread_no_socket_and_no_file() -> None:
    process = psutil.Process()
    with Exporter(port=0):
        pass
    gc.collect()
    wait_until(lambda: not exporter_threads(), "the first one's threads end")
    before = process.num_fds(), len(process.net_connections())
    for _ in range(100):
        with Exporter(port=0) as exporter:
            exporter.emit_line(STARTED)
    wait_until(lambda: not exporter_threads(), "no thread is left")
    gc.collect()
    assert (process.num_fds(), len(process.net_connections())) == before


def test_a_clock_that_jumps_breaks_nothing() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    jumps = iter([0, -86400, 86400 * 400, 5, -3, 0, 7, 0, 0, 1, 2, 3])

    def clock() -> datetime:
        return now + timedelta(seconds=next(jumps, 0))

    exporter = Exporter(port=0, clock=clock)
    for line in telemetry_lines("run2b")[:200]:
        exporter.emit_line(line)
    exporter.close()
    shown = page(exporter)
    assert value(shown, "esper_exporter_events_total") == 200
    assert value(shown, "esper_exporter_internal_errors_total", where="emit") == 0.0
    assert value(shown, FINISHED) == 1.0


@pytest.mark.parametrize("state", ["missing/deep", "file/below"])
def test_the_training_continues_wherever_the_state_goes(tmp_path: Path, state: str) -> None:
    (tmp_path / "file").write_text("")
    exporter = Exporter(port=0, run_id="night-7", state_dir=tmp_path / state)
    for line in telemetry_lines("run2b"):
        exporter.emit_line(line)
    shown = page(exporter)
    assert value(shown, "esper_exporter_events_total") == 776
    assert value(shown, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
    assert value(shown, "esper_exporter_internal_errors_total", where="final_page") == 0.0
    assert (tmp_path / "missing" / "deep").exists() is (state == "missing/deep")


def test_a_forked_child_ends_like_any_other() -> None:
    code = """
import os, signal, sys
from esper_exporter import Exporter
exporter = Exporter(port=0)
exporter.start()
read, write = os.pipe()
child = os.fork()
if child == 0:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sys.excepthook is sys.__excepthook__
    os.write(write, b"x")
    signal.pause()
os.read(read, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
exporter.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(ESPER_EXPORTER_STATE_DIR="off"),
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (f"{-signal.SIGTERM}\n", 0), done.stderr
