"""Requests that the receiver has not taken yet: on disk, so that they outlive the process.

Each process has a folder of its own below that of its receiver, locked while it lives; the next
process that sends to the same receiver takes over what a dead one has left. Without a directory,
or where it cannot be written, requests wait in memory, and fewer of them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from esper_exporter.agent.process_identity import LifeLock, is_locked

MEMORY_BYTES = 4 << 20
"""What may wait in memory where nothing can be written."""
LOCK = "lock"
LAST = ".last"
_NAME = re.compile(r"(\d{15})-(\d{6})-(\d+)\.snappy")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits: when it was made (Unix milliseconds), how many samples it has, its
    size, and where it lies, on disk (``path``) or in memory (``body``)."""

    moment: int
    samples: int
    size: int
    path: Path | None
    body: bytes = b""

    def read(self) -> bytes:
        """The request's body. Raises OSError."""
        return self.body if self.path is None else self.path.read_bytes()

    def remove(self) -> None:
        """Remove it from disk."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


class Backlog:
    """A queue of requests in order of time. Nothing it does raises for what the disk does.

    ``directory`` is that of one receiver (None: memory alone). Beyond ``max_bytes``, or older than
    ``max_age`` seconds, the oldest go first; ``on_drop`` is called with the reason ("bytes",
    "age", "unreadable") and the samples that went, ``on_problem`` with a line for the user.
    Thread-safe.
    """

    def __init__(
        self,
        directory: Path | None,
        max_bytes: int,
        max_age: float,
        on_drop: Callable[[str, int], None],
        on_problem: Callable[[str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._on_drop = on_drop
        self._on_problem = on_problem
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[Waiting] = deque()
        self._number = 0
        self._life: LifeLock | None = None
        self._folder: Path | None = None
        self.bytes = 0
        """Size of all that waits."""
        if directory is not None:
            self._open(directory)

    def _open(self, directory: Path) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        # Hidden until it is locked: another process would take it for a dead one's.
        beside = directory / f".{name}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.mkdir(mode=0o700)
            self._life = LifeLock(beside / LOCK)
            self._folder = beside.replace(directory / name)
            self._take_over(directory)
            self._forget_old(directory.parent)
        except OSError as problem:
            self._cannot_write(directory, problem)

    def _forget_old(self, base: Path) -> None:
        """Remove what processes have left for receivers that nobody sends to any more."""
        oldest = self._clock() - self._max_age
        for path in base.glob("*/*"):
            with suppress(OSError):
                if path == self._folder or path.lstat().st_mtime > oldest:
                    continue
                if path.suffix == LAST:
                    path.unlink()
                elif path.is_dir() and not path.is_symlink() and not is_locked(path / LOCK):
                    shutil.rmtree(path, ignore_errors=True)

    def _take_over(self, directory: Path) -> None:
        found: list[Waiting] = []
        assert self._folder is not None
        for other in directory.iterdir():
            hidden = other.name.startswith(".")
            if other == self._folder or hidden or not other.is_dir() or other.is_symlink():
                continue
            try:
                life = LifeLock(other / LOCK)
            except OSError:  # it lives, or is another user's
                continue
            try:
                found += self._moved(other, self._folder)
                shutil.rmtree(other, ignore_errors=True)
            finally:
                life.release()
        for waiting in sorted(found, key=lambda each: each.moment):
            self._queue.append(waiting)
            self.bytes += waiting.size
        self._trim()

    def _moved(self, other: Path, folder: Path) -> list[Waiting]:
        moved = []
        for path in sorted(other.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is None or path.is_symlink():
                continue
            with suppress(OSError):
                target = folder / f"{name[1]}-{self._next():06d}-{name[3]}.snappy"
                path.replace(target)
                size = target.stat().st_size
                moved.append(Waiting(int(name[1]), int(name[3]), size, target))
        return moved

    def _next(self) -> int:
        self._number = (self._number + 1) % 1_000_000
        return self._number

    def put(self, body: bytes, samples: int, moment: int) -> None:
        """Add the newest request."""
        with self._lock:
            waiting = self._written(body, samples, moment)
            self._queue.append(waiting)
            self.bytes += waiting.size
            self._trim()

    def _written(self, body: bytes, samples: int, moment: int) -> Waiting:
        if self._folder is not None:
            path = self._folder / f"{moment:015d}-{self._next():06d}-{samples}.snappy"
            beside = path.with_suffix(".new")
            try:
                # Not synced: it must outlive the process, and the disk may be a slow one.
                beside.write_bytes(body)
                beside.replace(path)
                return Waiting(moment, samples, len(body), path)
            except OSError as problem:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                self._cannot_write(self._folder, problem)
        return Waiting(moment, samples, len(body), None, body)

    def _cannot_write(self, directory: Path, problem: OSError) -> None:
        reason = problem.strerror or str(problem)
        self._on_problem(
            f"requests to push wait in memory: {directory} cannot be written: {reason}"
        )

    def _trim(self) -> None:
        oldest = (self._clock() - self._max_age) * 1000
        in_memory = sum(each.size for each in self._queue if each.path is None)
        while self._queue:
            first = self._queue[0]
            if first.moment < oldest:
                reason = "age"
            elif self.bytes > self._max_bytes or in_memory > MEMORY_BYTES:
                reason = "bytes"
            else:
                return
            if first.path is None:
                in_memory -= first.size
            self._drop_first(reason)

    def _drop_first(self, reason: str) -> None:
        first = self._queue.popleft()
        self.bytes -= first.size
        first.remove()
        self._on_drop(reason, first.samples)

    def first(self) -> tuple[Waiting, bytes] | None:
        """The oldest request and its body, None when none waits."""
        with self._lock:
            self._trim()
            while self._queue:
                try:
                    return self._queue[0], self._queue[0].read()
                except OSError:
                    self._drop_first("unreadable")
            return None

    def done(self, waiting: Waiting) -> None:
        """Remove a request that the receiver has taken, or will never take."""
        with self._lock:
            if self._queue and self._queue[0] is waiting:
                self._queue.popleft()
                self.bytes -= waiting.size
                waiting.remove()

    def close(self) -> None:
        """Leave what waits to the next process; remove the folder when nothing does."""
        with self._lock:
            if self._folder is not None and not self._queue:
                shutil.rmtree(self._folder, ignore_errors=True)
            self.release()

    def release(self) -> None:
        """Give up this process's copy of the lock: in a forked child, and at the end."""
        if self._life is not None:
            self._life.release()
            self._life = None
