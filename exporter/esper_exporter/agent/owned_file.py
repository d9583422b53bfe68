"""Open the files of a share, none of which is trusted: links, foreign and huge ones are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class PageRefused(Exception):
    """A page that must not be served. ``reason`` is a label value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def open_owned(path: Path, owners: frozenset[int], limit: int) -> int:
    """A file descriptor for reading a regular file of one of ``owners`` that is at most ``limit``
    bytes long. Raises PageRefused, or FileNotFoundError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise PageRefused("unreadable", f"{path}: {problem.strerror}") from None
    found = os.fstat(handle)
    try:
        if not stat.S_ISREG(found.st_mode):
            raise PageRefused("not_a_file", f"{path} is not a regular file")
        if found.st_uid not in owners:
            raise PageRefused("owner", f"{path} belongs to user {found.st_uid}")
        if found.st_size > limit:
            raise PageRefused("too_large", f"{path} has {found.st_size} bytes")
    except PageRefused:
        os.close(handle)
        raise
    return handle
