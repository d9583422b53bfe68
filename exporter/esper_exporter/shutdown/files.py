"""Small files that must survive: written beside their place, synced, then put into it."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("esper_exporter")


class Files:
    """Writes and prunes files. Nothing it does raises: a full disk is a warning, once a kind."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int | None]] = set()

    def write(self, path: Path, content: bytes) -> bool:
        """Replace a file's content in one step, on disk when this returns; whether it was done."""
        # The training's thread and the one that handles SIGTERM may write at the same time.
        beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(path)
            _sync_directory(path.parent)
        except OSError as problem:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self._tell(path.parent, problem)
            return False
        return True

    def keep_newest(self, directory: Path, pattern: str, count: int) -> None:
        """Remove the oldest files beyond a count."""
        for _, path in sorted(self._aged(directory, pattern), reverse=True)[count:]:
            with suppress(OSError):
                path.unlink()

    def keep_younger(self, directory: Path, pattern: str, seconds: float) -> None:
        """Remove the files that nobody has written for so long."""
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
                    found.append((path.stat().st_mtime, path))
        return found

    def _tell(self, directory: Path, problem: OSError) -> None:
        kind = (str(directory), problem.errno)
        if kind not in self._told:
            self._told.add(kind)
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            logger.warning("nothing can be written to %s: %s; told once", directory, reason)


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
