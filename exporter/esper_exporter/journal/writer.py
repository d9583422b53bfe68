"""The journal of a running exporter: a queue that the training fills, and a thread that writes.

Accepting an event costs the training an append to a queue. The thread encodes and writes what came
ten times a second, and at once after a latch. A full disk ends the journal, never the training.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.journal.segments import SegmentFile, frame, new_segment

if TYPE_CHECKING:
    from esper_exporter.contract.events import Event
    from esper_exporter.state.run import RunIdentity

PERIOD_SECONDS = 0.1
CLOSE_SECONDS = 5.0
ALIVE_SECONDS = 5.0
SEGMENT_BYTES = 32 << 20
SEGMENT_SECONDS = 3600.0
MOST_WAITING = 200_000
LONGEST_DETAIL = 4096


class JournalWriter:
    """Writes the accepted events of an exporter into a journal's directory. No method raises.

    ``on_problem`` is called with a line for the user when the journal has to stop, and each time it
    leaves an event out because the disk is too slow.
    ``max_bytes`` and ``max_age`` (seconds) limit what the journal keeps, 0 keeps everything;
    ``compact`` turns closed segments into Parquet in a separate process.
    """

    def __init__(
        self,
        directory: Path,
        on_problem: Callable[[str], object],
        *,
        max_bytes: int = 0,
        max_age: float = 0.0,
        compact: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._on_problem = on_problem
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._compact = compact
        self._segment_bytes = segment_bytes
        self._queue: deque[tuple[Any, ...]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._writing = threading.Lock()
        self._pid = os.getpid()
        self._token = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self._pid}-{secrets.token_hex(3)}"
        self._segment: SegmentFile | None = None
        self._opened_at = 0.0
        self._number = 0
        self._seq = 0
        self._runs: dict[RunIdentity, int] = {}
        self._alive_at = 0.0
        self.active = True

    def record(self, event: Event, run: RunIdentity) -> None:
        """Record an accepted event. Called with the state held: it only queues."""
        if not self.active:
            return
        if len(self._queue) >= MOST_WAITING:
            self._on_problem(f"the journal in {self._directory} is too slow; events are missing")
            return
        self._put(event, run)

    def record_ending(self, run: RunIdentity, reason: str, detail: str, when: datetime) -> None:
        """Record how a run ended."""
        self._put({"reason": reason, "detail": detail[:LONGEST_DETAIL]}, run, when)
        self.hurry()

    def record_gpu_fault(
        self, run: RunIdentity, gpu: str, uuid: str, kind: str, count: int, when: datetime
    ) -> None:
        """Record a GPU fault during a run."""
        entry = {"k": "gpu", "gpu": gpu, "uuid": uuid, "kind": kind, "count": count}
        self._put(entry, run, when)
        self.hurry()

    def _put(self, *entry: Any) -> None:
        self._queue.append(entry)
        if self._thread is None:
            self._begin()

    def hurry(self) -> None:
        """Write at once: a latch was lit."""
        self._wake.set()

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until all accepted events are written, for at most the given seconds."""
        until = time.monotonic() + seconds
        while self._queue and self.active and time.monotonic() < until:
            self._wake.set()
            time.sleep(0.002)
        if self._writing.acquire(timeout=max(0.0, until - time.monotonic())):
            self._writing.release()

    def close(self) -> None:
        """Write the rest and close the segment.

        Where the disk takes longer than `CLOSE_SECONDS`, the thread does it after this returns.
        """
        if os.getpid() != self._pid or (thread := self._thread) is None:
            return
        self._closing = True
        self._wake.set()
        thread.join(CLOSE_SECONDS)

    # -- the thread ------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self._closing:
                self._thread = start_daemon(self._run, "esper-exporter-journal")
        except RuntimeError:  # the interpreter is ending
            self._thread = None
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            closing = self._closing
            try:
                with self._writing:
                    self._write(time.monotonic())
                    if closing:
                        self._end_segment()
            except Exception as problem:
                self._stop(problem)
            if closing:
                self._thread = None
                self._closing = False  # last, or an event that comes now would begin a second one
                return
            self._wake.wait(PERIOD_SECONDS)
            self._wake.clear()

    def _stop(self, problem: Exception) -> None:
        self.active = False
        self._queue.clear()
        reason = problem.strerror if isinstance(problem, OSError) else repr(problem)
        self._on_problem(f"the journal in {self._directory} has stopped: {reason}")

    def _write(self, now: float) -> None:
        if not self.active:
            return
        frames = []
        for _ in range(len(self._queue)):
            frames += self._frames(self._queue.popleft())
        if self._segment is not None and now - self._alive_at > ALIVE_SECONDS:
            frames.append(frame({"k": "alive", "t": time.time()}))
        if not frames:
            return
        if self._segment is None:
            self._open(now)
        assert self._segment is not None
        self._alive_at = now
        self._segment.write(b"".join(frames))
        full = self._segment.size > self._segment_bytes
        if full or now - self._opened_at > SEGMENT_SECONDS:
            self._end_segment()
            self._runs.clear()
            self._compact_later()

    def _frames(self, queued: tuple[Any, ...]) -> list[bytes]:
        held, run = queued[0], queued[1]
        made = []
        index = self._runs.get(run)
        if index is None:
            index = self._runs[run] = len(self._runs)
            entry = {"k": "run", "i": index, "r": run.run_id, "g": run.group_id, "n": run.rank}
            made.append(frame(entry))
        self._seq += 1
        if isinstance(held, dict):
            stamp = queued[2].timestamp()
            made.append(frame({"k": "end", "i": index, "s": self._seq, "t": stamp, **held}))
            return made
        record = {
            "k": "event",
            "i": index,
            "s": self._seq,
            "n": held.name,
            "t": held.timestamp,
            "e": held.event_id,
            "g": held.group_id,
            "d": held.data,
        }
        for name in ("seed_id", "slot_id", "epoch", "message"):
            value = getattr(held, name)
            if value not in (None, ""):
                record[name] = value
        if held.severity != "info":
            record["severity"] = held.severity
        made.append(frame(record))
        return made

    def _open(self, now: float) -> None:
        self._number += 1
        self._segment = new_segment(self._directory, f"{self._token}-{self._number:06d}")
        self._opened_at = now

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.write(frame({"k": "closed"}))
            finally:
                segment.close()

    def _compact_later(self) -> None:
        if not self._compact or not (find_spec("duckdb") and find_spec("pyarrow")):
            return
        command = [sys.executable, "-m", "esper_exporter", "journal", "compact", "--quiet"]
        if self._max_bytes:
            command += ["--max-bytes", str(self._max_bytes)]
        if self._max_age:
            command += ["--max-age", str(self._max_age)]
        try:
            subprocess.Popen(  # its end is waited for when the next one begins
                ["nice", "-n", "19", *command, str(self._directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as problem:
            self._on_problem(f"the journal is not compacted: {problem.strerror}")
