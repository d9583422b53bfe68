"""The journal: what an exporter keeps, through kills, full disks and damage."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from esper_exporter.journal.exit_record import append_ending, record_exit
from esper_exporter.journal.reading import read_runs
from esper_exporter.journal.report import explain
from esper_exporter.journal.segments import FOLDER, MAGIC, SegmentState, read_segment
from esper_exporter.journal.store import PARTS, compact, open_segments, verify
from esper_exporter.journal.writer import JournalWriter
from esper_exporter.sql import connect
from esper_exporter.state.failure_reason import Reason
from support.programs import wait_until
from support.threads import exporter_threads

LATER = datetime.now(UTC) + timedelta(days=400)


def events_of(name: str) -> list[dict[str, Any]]:
    with recording(name) as path:
        return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def journalled(directory: Path, events: list[dict[str, Any]], **settings: Any) -> Exporter:
    exporter = Exporter(port=0, state_dir="off", watch_process=False, journal=directory, **settings)
    for event in events:
        exporter.emit(event)
    assert exporter.journal is not None
    exporter.journal.flush(30.0)
    return exporter


def count(journal: Path, view: str = "raw_events") -> int:
    found: int = connect(journal).execute(f"SELECT count(*) FROM {view}").fetchall()[0][0]
    return found


def test_every_accepted_event_is_kept_before_and_after_compaction(tmp_path: Path) -> None:
    events = events_of("run2b")
    exporter = journalled(tmp_path, events, run_id="night-7")
    assert count(tmp_path) == len(events)  # read while it is written
    exporter.close()
    query = "SELECT run_id, head, kind, updates, first_update FROM latches ORDER BY head"
    before = connect(tmp_path).execute(query).fetchall()
    assert before == [("night-7", "op", "nan", 2, 5), ("night-7", "tempo", "nan", 1, 3)]
    sums = "SELECT sum(grad_norm), sum(entropy), sum(batch) FROM tamiyo_updates"
    reported = connect(tmp_path).execute(sums).fetchall()
    assert compact(tmp_path)[0] == len(events)
    assert open_segments(tmp_path) == []
    assert connect(tmp_path).execute(query).fetchall() == before
    assert connect(tmp_path).execute(sums).fetchall() == reported
    assert verify(tmp_path)[0] == []
    with recording("run2b") as path:
        assert connect(path).execute(sums).fetchall() == reported


def test_a_refused_event_is_not_kept(tmp_path: Path) -> None:
    events = events_of("run2b")[:20]
    bad = [{"event_type": "NO_SUCH", "data": {}}, {**events[5]}]  # the second one is a repeat
    journalled(tmp_path, [*events, *bad]).close()
    assert count(tmp_path) == 20


@pytest.mark.parametrize("compacted", [False, True])
def test_explain_says_the_same_from_a_journal(tmp_path: Path, compacted: bool) -> None:
    journalled(tmp_path, events_of("run2b")).close()
    if compacted:
        compact(tmp_path)
    [run], warnings = read_runs([tmp_path])
    report = explain(run, LATER)
    assert warnings == []
    assert (report["verdict"], report["cause"], report["head"]) == ("failed", "head_nan", "tempo")
    assert report["update"] == 3


_CHILD = """
import json, os, sys, time
from esper_exporter import Exporter
exporter = Exporter(port=0, state_dir="off", journal=sys.argv[1], linger=0)
exporter.journal
begun = json.loads(sys.argv[2])
exporter.emit(begun)
number = 0
while True:
    number += 1
    event = {"event_type": "TOLARIA_EPOCH_COMPLETED", "event_id": f"e{os.getpid()}-{number}",
             "data": {"env_id": 0, "val_accuracy": 1.0, "val_loss": 2.0, "inner_epoch": number}}
    exporter.emit(event)
    if number == 400:
        exporter.emit({"event_type": "NUMERICAL_INSTABILITY_DETECTED", "data": {
            "anomaly_type": "ppo_finiteness_skip", "episode": 0, "batch": 0, "inner_epoch": 1,
            "total_episodes": 1, "detail": "Sources: log_probs[op]: NaN detected"}})
        time.sleep(0.1)
        print("latched", flush=True)
    if number % 50 == 0:
        print(number, time.time(), flush=True)
        time.sleep(0.002)
"""

KILLS = int(os.environ.get("ESPER_JOURNAL_KILLS", "8"))


@pytest.mark.parametrize("turn", range(KILLS))
def test_sigkill_loses_no_latch_and_at_most_a_second(tmp_path: Path, turn: int) -> None:
    begun = json.dumps(events_of("run2b")[0])
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path), begun], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    emitted: list[tuple[int, float]] = []
    latched = False
    for line in child.stdout:
        if line == "latched\n":
            latched = True
            continue
        number, stamp = line.split()
        emitted.append((int(number), float(stamp)))
        if latched and int(number) > 400 + 550 * (turn % 7):
            break
    child.send_signal(signal.SIGKILL)
    killed = time.time()
    child.wait()
    for line in child.stdout:
        if line.endswith("\n") and line.count(" ") == 1:
            number, stamp = line.split()
            emitted.append((int(number), float(stamp)))
    child.stdout.close()
    bad, _ = verify(tmp_path)
    assert bad == []
    connection = connect(tmp_path)
    kept = connection.execute("SELECT max(inner_epoch) FROM tolaria_epochs").fetchall()[0][0]
    due = max((number for number, stamp in emitted if stamp < killed - 1.0), default=0)
    assert kept >= due
    assert connection.execute("SELECT head, kind FROM latches").fetchall() == [("op", "nan")]
    [run], _ = read_runs([tmp_path])
    assert run.orphaned
    assert explain(run, LATER)["verdict"] == "failed"


def test_a_journal_that_is_too_slow_logs_once_that_events_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("esper_exporter.journal.writer.MOST_WAITING", 0)
    journalled(tmp_path, events_of("run1")[:3])
    logged = [line for line in caplog.messages if "journal" in line]
    assert logged == [f"the journal in {tmp_path} is too slow; events are missing"]


def test_a_killed_run_without_a_fault_was_killed(tmp_path: Path) -> None:
    writer = journalled(tmp_path, events_of("run1")[:4000]).journal
    assert writer is not None
    # As after SIGKILL: no process holds the segment any more, and it has no end.
    assert writer._segment is not None
    os.close(writer._segment._descriptor)
    writer._segment = None
    writer._closing = True
    [run], _ = read_runs([tmp_path])
    report = explain(run, LATER)
    assert (report["verdict"], report["cause"]) == ("failed", "killed")
    append_ending(tmp_path, (run.run_id, run.group_id, run.rank), "out_of_memory", -9, 9)
    [run], _ = read_runs([tmp_path])
    assert explain(run, LATER)["cause"] == "out_of_memory"


def test_only_a_run_that_recorded_no_end_gets_one_from_outside(tmp_path: Path) -> None:
    [begun, *_] = events_of("run1")
    other = begun | {"event_id": "other", "group_id": "other"}
    exporter = journalled(tmp_path, [begun, other])
    assert exporter.journal is not None
    (ended,) = (one for one in exporter._runs.identities() if one.group_id == "default")
    exporter.journal.record_ending(ended, "exception", "it raised", datetime.now(UTC))
    exporter.journal.flush(30.0)
    assert record_exit(tmp_path, os.getpid(), "killed", 137, 9) == 1
    runs, _ = read_runs([tmp_path])
    reasons = {run.group_id: run.ending.reason for run in runs if run.ending is not None}
    assert reasons == {"default": "exception", "other": "killed"}
    exporter.close()


def test_the_wrapper_records_what_the_process_could_not(tmp_path: Path) -> None:
    begun = json.dumps(events_of("run2b")[0])
    code = (
        "import json, os, sys, signal, time; from esper_exporter import Exporter;"
        "exporter = Exporter(port=0, state_dir='off', linger=0);"
        "exporter.emit(json.loads(sys.argv[1])); time.sleep(0.5);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-m", "esper_exporter", "run", "--", sys.executable, "-c", code]
    environment = {
        **os.environ,
        "ESPER_EXPORTER_JOURNAL": str(tmp_path / "journal"),
        "ESPER_EXPORTER_PORT": "0",
        "ESPER_EXPORTER_LINGER": "0",
        "ESPER_EXPORTER_TERM_LINGER": "0",
        "ESPER_EXPORTER_SHARE": str(tmp_path / "share"),
    }
    ended = subprocess.run(
        [*command, begun], env=environment, timeout=120, check=False, stderr=subprocess.PIPE
    )
    assert ended.returncode == -signal.SIGKILL
    [run], _ = read_runs([tmp_path / "journal"])
    assert run.ending is not None
    assert (run.ending.reason, run.ending.signal) == ("killed", 9)
    assert explain(run, LATER)["cause"] == "killed"


def test_how_a_run_ended_is_kept(tmp_path: Path) -> None:
    events = events_of("run1")[:3000]
    exporter = Exporter(port=0, state_dir="off", journal=tmp_path, linger=0, term_linger=0)
    with pytest.raises(RuntimeError), exporter:
        for event in events:
            exporter.emit(event)
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    [run], _ = read_runs([tmp_path])
    report = explain(run, LATER)
    assert (report["verdict"], report["cause"]) == ("failed", "out_of_memory")
    found = connect(tmp_path).execute("SELECT reason, detail FROM endings").fetchall()
    assert found == [("oom", "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB")]


def test_a_gpu_fault_is_kept_and_is_the_cause(tmp_path: Path) -> None:
    exporter = Exporter(port=0, state_dir="off", watch_process=False, journal=tmp_path)
    for event in events_of("run1")[:4000]:
        exporter.emit(event)
    exporter._parts.vitals.on_gpu_fault("0", "GPU-1", "xid_79", 1)
    exporter.mark_ended(Reason.EXCEPTION, RuntimeError("CUDA error: unspecified launch failure"))
    exporter.close()
    found = connect(tmp_path).execute("SELECT gpu, kind FROM gpu_faults").fetchall()
    assert found == [("0", "xid_79")]
    [run], _ = read_runs([tmp_path])
    assert explain(run, LATER)["cause"] == "gpu_fault"


def test_a_full_disk_stops_the_journal_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    events = events_of("run2b")
    exporter = journalled(tmp_path, events[:100])
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if threading.current_thread().name == "esper-exporter-journal":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    assert b"esper_exporter_journal_active 1" in exporter.render()
    for event in events[100:]:
        exporter.emit(event)
    assert exporter.journal is not None
    until = time.monotonic() + 30
    while exporter.journal.active and time.monotonic() < until:
        time.sleep(0.01)
    assert b"esper_exporter_journal_active 0" in exporter.render()
    monkeypatch.undo()
    exporter.close()
    assert exporter.snapshot() is not None
    assert count(tmp_path) >= 100


def test_without_a_journal_the_page_has_no_metric_of_one() -> None:
    exporter = Exporter(port=0, state_dir="off", watch_process=False)
    assert b"esper_exporter_journal_active" not in exporter.render()


def test_a_directory_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    exporter = journalled(tmp_path / "file" / "journal", events_of("run2b")[:50])
    assert exporter.journal is not None
    until = time.monotonic() + 30
    while exporter.journal.active and time.monotonic() < until:
        time.sleep(0.01)
    assert not exporter.journal.active
    exporter.close()


def test_a_disk_that_is_slow_at_the_end_loses_nothing_and_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esper_exporter.journal.writer.CLOSE_SECONDS", 0.01)
    events = events_of("run2b")[:50]
    exporter = journalled(tmp_path, events[:20])
    writer = exporter.journal
    assert writer is not None
    with writer._writing:  # as long as a write takes
        for event in events[20:]:
            exporter.emit(event)
        exporter.close()
        assert "esper-exporter-journal" in exporter_threads()
    wait_until(lambda: not exporter_threads(), "the thread of the journal ends")
    assert writer._segment is None
    assert count(tmp_path) == len(events)


def test_segments_turn_over_and_every_event_is_read_once(tmp_path: Path) -> None:
    events = events_of("run2b")
    problems: list[str] = []
    writer = JournalWriter(tmp_path, problems.append, compact=False, segment_bytes=50_000)
    exporter = Exporter(port=0, state_dir="off", watch_process=False)
    exporter._parts.journal = exporter._ingest._journal = writer
    for number, event in enumerate(events):
        exporter.emit(event)
        if number % 100 == 0:
            writer.flush()
    exporter.close()
    assert problems == []
    assert len(open_segments(tmp_path)) > 3
    assert count(tmp_path) == len(events)
    compact(tmp_path)
    assert count(tmp_path) == len(events)


def damage(path: Path, turn: int) -> None:
    data = bytearray(path.read_bytes())
    place = (len(data) * (turn * 37 % 97)) // 97
    data[max(place, 12 if path.suffix == ".segment" else 0)] ^= 0x55
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("turn", range(20))
def test_verify_finds_a_damaged_file(
    tmp_path: Path, turn: int, capsys: pytest.CaptureFixture[str]
) -> None:
    journalled(tmp_path, events_of("run2b")).close()
    if turn % 2:
        compact(tmp_path)
        files = sorted(next((tmp_path / PARTS).iterdir()).iterdir())
    else:
        files = sorted((tmp_path / FOLDER).iterdir())
    assert main(["journal", "verify", str(tmp_path)]) == 0
    damage(files[turn // 2 % len(files)], turn + 1)
    assert main(["journal", "verify", str(tmp_path)]) == 1
    assert "1 damaged" in capsys.readouterr().out


def test_a_torn_end_is_no_damage_and_the_rest_is_read(tmp_path: Path) -> None:
    journalled(tmp_path, events_of("run2b")).close()
    [path] = (tmp_path / FOLDER).iterdir()
    whole = path.read_bytes()
    state = SegmentState()
    records = len(list(read_segment(path, state)))
    for cut in (len(whole) - 1, len(whole) - 30, len(MAGIC) + 3, 4, 0):
        path.write_bytes(whole[:cut])
        state = SegmentState()
        assert len(list(read_segment(path, state))) < records
        assert state.problem is None


def test_telemetry_is_imported_and_old_parts_are_pruned(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with recording("run1") as one, recording("run2b") as other:
        assert main(["journal", "import", str(journal), str(one), str(other)]) == 0
    assert count(journal) == 7412 + 776
    assert count(journal, "runs") == 2
    assert main(["journal", "prune", str(journal), "--max-bytes", "1"]) == 0
    assert count(journal, "runs") == 1
    assert main(["journal", "verify", str(journal)]) == 0
    assert main(["journal", "verify", str(tmp_path / "none")]) == 1
