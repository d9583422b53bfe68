"""Follow a growing file: read new lines as they arrive, also across rotations."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator

from esper_exporter.replay.lines import Damaged, LineSplitter, OnBytes
from esper_exporter.replay.stop import Waiter

POLL_SECONDS = 0.2
"""How often to check a file without new data; polling works on network file systems too."""

_CHUNK = 65536


def follow_lines(
    name: str, waiter: Waiter, on_bytes: OnBytes, poll_seconds: float = POLL_SECONDS
) -> Generator[bytes]:
    """The lines of a growing file from its beginning, until a stop request.

    It waits for a file that does not exist yet, and yields a line once its end is written. It
    reads a truncated file from its beginning again; when another file takes the name, it first
    reads the old one to its end. Raises Damaged for a compressed, irregular or unreadable file.
    """
    splitter = LineSplitter()
    descriptor = -1
    try:
        descriptor = _open_when_there(name, waiter, poll_seconds)
        position = 0
        while descriptor >= 0:
            replaced = _is_replaced(name, descriptor)
            while piece := os.read(descriptor, _CHUNK):
                if position == 0 and piece.startswith(b"\x1f\x8b"):
                    raise Damaged("a compressed file cannot be followed")
                position += len(piece)
                on_bytes(len(piece))
                yield from splitter.feed(piece)
            if replaced:
                if last := splitter.take():
                    yield last
                os.close(descriptor)
                descriptor = -1
                descriptor = _open_when_there(name, waiter, poll_seconds)
                position = 0
            elif os.fstat(descriptor).st_size < position:
                splitter.take()
                position = os.lseek(descriptor, 0, os.SEEK_SET)
            elif waiter.wait(poll_seconds):
                return
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_when_there(name: str, waiter: Waiter, poll_seconds: float) -> int:
    """A descriptor of the file; -1 when a stop request comes before the file exists."""
    while True:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if waiter.wait(poll_seconds):
                return -1
            continue
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Damaged("only a regular file can be followed")
        return descriptor


def _is_replaced(name: str, descriptor: int) -> bool:
    """Whether the name now belongs to another file; a missing file may come back."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return False
    return not os.path.samestat(found, os.fstat(descriptor))
