"""What outlives the process: the newest page of a run, and a few of its earlier processes'."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.atomic_file import Files
from esper_exporter.shutdown import persistence as persistence_module
from esper_exporter.shutdown.final_page import KEEP_EARLIER, FinalPages, page_name
from esper_exporter.shutdown.persistence import Persistence, State
from esper_exporter.state.registry import LatchRecord
from esper_exporter.state.run import RunIdentity
from support.pages import value
from support.programs import wait_until
from support.recordings import telemetry_lines

NAME = page_name("night-7", 0)
NEWEST = f"{NAME}.final.prom"
STARTED = telemetry_lines("run1")[0]


def a_process(folder: Path, page: bytes, textfiles: Path | None = None) -> None:
    """A process writes its page twice."""
    pages = FinalPages(folder, textfiles, Files())
    pages.write(NAME, b"before " + page)
    pages.write(NAME, page)


def test_a_resumed_run_leaves_the_page_of_the_process_that_was_killed(tmp_path: Path) -> None:
    a_process(tmp_path, b"killed", tmp_path / "textfiles")
    a_process(tmp_path, b"resumed", tmp_path / "textfiles")
    assert (tmp_path / NEWEST).read_bytes() == b"resumed"
    (earlier,) = tmp_path.glob(f"{NAME}.*Z.final.prom")
    assert earlier.read_bytes() == b"killed"
    # node_exporter would refuse the same series from two files.
    assert [path.read_bytes() for path in (tmp_path / "textfiles").iterdir()] == [b"resumed"]


def test_only_so_many_earlier_pages_of_a_run_stay(tmp_path: Path) -> None:
    for number in range(KEEP_EARLIER + 3):
        a_process(tmp_path, str(number).encode())
        os.utime(tmp_path / NEWEST, (number, number))
    earlier = sorted(tmp_path.glob(f"{NAME}.*Z.final.prom"))
    assert [path.read_bytes() for path in earlier] == [b"2", b"3", b"4", b"5", b"6"]
    assert (tmp_path / NEWEST).read_bytes() == b"7"


@pytest.mark.parametrize("place", ["pipe", "link", "folder"])
def test_anything_in_place_of_a_page_does_no_harm(tmp_path: Path, place: str) -> None:
    path = tmp_path / NEWEST
    if place == "pipe":
        os.mkfifo(path)
    elif place == "link":
        (tmp_path / "precious").write_text("mine")
        path.symlink_to(tmp_path / "precious")
    else:
        path.mkdir()
    a_process(tmp_path, b"page")
    assert path.is_dir() if place == "folder" else path.read_bytes() == b"page"
    if place == "link":
        assert (tmp_path / "precious").read_text() == "mine"


def test_a_page_that_was_rendered_earlier_never_replaces_a_later_one(tmp_path: Path) -> None:
    persistence = Persistence(tmp_path, None)
    identity = RunIdentity("night-7", "A", 0)
    rendering, go_on = threading.Event(), threading.Event()
    latched = [b"latched 0"]

    def slow() -> bytes:
        page = latched[0]
        rendering.set()
        assert go_on.wait(30.0)
        return page

    def state() -> State:
        return [], identity

    slower = threading.Thread(target=persistence.save, args=(state, slow))
    slower.start()
    assert rendering.wait(30.0)
    latched[0] = b"latched 1"
    later = threading.Thread(target=persistence.save, args=(state, lambda: latched[0]))
    later.start()
    go_on.set()
    slower.join(30.0)
    later.join(30.0)
    assert (tmp_path / NEWEST).read_bytes() == b"latched 1"


def test_latches_that_found_no_room_are_written_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence_module, "SECONDS_UNTIL_SAVED_AGAIN", 0.05)
    blocked = tmp_path / "state"
    blocked.write_text("a file where a directory belongs")
    persistence = Persistence(blocked, None)
    records = [LatchRecord("night-7.latches.json", b"the first")]

    def state() -> State:
        return records, RunIdentity("night-7", "A", 0)

    persistence.save(state, lambda: b"")
    records[:] = [LatchRecord("night-7.latches.json", b"the second")]
    persistence.save(state, lambda: b"")
    blocked.unlink()
    kept = blocked / "night-7.latches.json"
    wait_until(kept.exists, "the latches are written")
    assert kept.read_bytes() == b"the second"
    assert persistence.save_again()


def test_a_save_that_interrupts_a_save_is_carried_out_after_it(tmp_path: Path) -> None:
    persistence = Persistence(tmp_path, None)
    pages = [b"outer", b"inner", b"inner again"]

    def state() -> State:
        return [], RunIdentity("night-7", "A", 0)

    def render() -> bytes:
        page = pages.pop(0)
        if page == b"outer":
            persistence.save(state, render)  # as a signal handler's emit would
        return page

    persistence.save(state, render)
    assert (tmp_path / NEWEST).read_bytes() == b"inner"
    assert pages == [b"inner again"]


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"version": Infinity}', b"\xff"])
def test_a_run_starts_whatever_its_kept_latches_look_like(tmp_path: Path, text: bytes) -> None:
    first = Exporter(run_id="night-7", state_dir=tmp_path)
    first.emit_line(telemetry_lines("run2b")[0])
    for line in telemetry_lines("run2b"):
        first.emit_line(line)
    first.close()
    (path,) = tmp_path.glob("*.latches.json")
    path.write_bytes(text)
    resumed = Exporter(run_id="night-7", state_dir=tmp_path)
    resumed.emit_line(telemetry_lines("run2b")[0])
    page = resumed.render().decode()
    assert value(page, "esper_run_events_total", type="TRAINING_STARTED") == 1.0
    assert value(page, "esper_exporter_state_problems_total", problem="file") == 1.0
    assert value(page, "esper_exporter_internal_errors_total", where="emit") == 0.0
