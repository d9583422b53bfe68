"""Small files that must survive: written beside their place, synced, then put into it."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from esper_exporter.log_once import Kinds

logger = logging.getLogger("esper_exporter")

LEFTOVER_SECONDS = 3600.0
"""The age from which a file that was never put into its place belongs to a process that died."""


class NotRegular(ValueError):
    """A FIFO, a device or a directory where a regular file belongs."""


class Files:
    """Reads, writes and prunes files. Writing and pruning never raise: a full disk is a warning,
    once a kind. ``on_unwritable`` is called for each write that failed."""

    def __init__(self, on_unwritable: Callable[[], None] = lambda: None) -> None:
        self._on_unwritable = on_unwritable
        self._kinds = Kinds()

    def write(self, path: Path, content: bytes) -> bool:
        """Replace a file's content in one step, on disk when this returns; whether it was done."""
        # An unpredictable name, and never through a link that another user placed there.
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(beside, flags, 0o666), "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(path)
            _sync_directory(path.parent)
        except OSError as problem:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self._log(path.parent, problem)
            self._on_unwritable()
            return False
        return True

    def read(self, path: Path, limit: int) -> bytes:
        """The content of a regular file of at most ``limit`` bytes.

        Never waits for a writer and follows no link. Raises OSError where it cannot be read,
        NotRegular for what is no regular file, ValueError for a larger one.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotRegular("not a regular file")
            content = file.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"more than {limit} bytes")
        return content

    def keep_newest(self, directory: Path, pattern: str, count: int) -> None:
        """Remove the oldest files beyond a count, and what dead processes never finished."""
        for _, path in sorted(self._aged(directory, pattern), reverse=True)[count:]:
            with suppress(OSError):
                path.unlink()
        self.keep_younger(directory, f".{pattern}.*.new", LEFTOVER_SECONDS)

    def keep_younger(self, directory: Path, pattern: str, seconds: float) -> None:
        """Remove the files that were not written for ``seconds``."""
        oldest = time.time() - seconds
        for modified, path in self._aged(directory, pattern):
            if modified < oldest:
                with suppress(OSError):
                    path.unlink()

    def _aged(self, directory: Path, pattern: str) -> list[tuple[float, Path]]:
        found = []
        with suppress(OSError):
            for path in directory.glob(pattern):
                with suppress(OSError):  # another process has pruned it
                    found.append((path.lstat().st_mtime, path))
        return found

    def _log(self, directory: Path, problem: OSError) -> None:
        if self._kinds.first((str(directory), problem.errno)):
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            logger.warning("nothing can be written to %s: %s; logged once", directory, reason)


def _sync_directory(directory: Path) -> None:
    """Make a file's new name durable, where the file system knows such a thing."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
