"""Segments: the append-only files that a journal is written to, one record after the other.

A record is its length, its CRC-32 and a MessagePack map, so that what was cut off in the middle is
seen, and the records before it can be read. Written bytes survive the death of the process: they
are in the system's cache, whether or not they are on the disk yet.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from esper_exporter.journal.sources import JOURNAL

VERSION = 1
MAGIC = b"ESPERJ1\n"
SUFFIX = ".segment"
FOLDER = "segments"
LONGEST_RECORD = 64 << 20

_HEADER = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def frame(record: Any) -> bytes:
    """A record as a segment stores it."""
    body = _encode(record)
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


@dataclass(slots=True)
class SegmentState:
    """Result of reading a segment: sound bytes, and what is damaged behind them.

    A segment that ends within a record, as after a killed writer, is not damaged.
    """

    sound: int = 0
    problem: str | None = None


def read_segment(path: Path, state: SegmentState) -> Iterator[dict[str, Any]]:
    """The records of a segment up to its end or the first that is damaged. Raises OSError."""
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            state.problem = None if MAGIC.startswith(magic) else "not a segment"
            return
        state.sound = len(MAGIC)
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                return
            length, crc = _HEADER.unpack(header)
            if length > LONGEST_RECORD:
                state.problem = f"a record of {length} bytes at {state.sound}"
                return
            body = file.read(length)
            if len(body) < length:
                return
            if zlib.crc32(body) != crc:
                state.problem = f"the checksum of the record at {state.sound} does not match"
                return
            try:
                record = _decode(body)
            except msgspec.DecodeError as error:
                state.problem = f"the record at {state.sound} cannot be read ({error})"
                return
            state.sound += _HEADER.size + length
            yield record


def is_being_written(path: Path) -> bool:
    """Whether a process holds a segment open to append to it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_journal(directory: Path) -> None:
    """Make a directory a journal. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    mark = directory / JOURNAL
    if not mark.exists():
        beside = mark.with_name(f".{JOURNAL}.{os.getpid()}-{secrets.token_hex(3)}")
        beside.write_text(json.dumps({"version": VERSION}) + "\n")
        beside.replace(mark)


def new_segment(directory: Path, name: str) -> SegmentFile:
    """A new segment of a journal, which is made if it is missing. Raises OSError."""
    make_journal(directory)
    (directory / FOLDER).mkdir(exist_ok=True)
    return SegmentFile(directory / FOLDER / f"{name}{SUFFIX}")


class SegmentFile:
    """A segment that is being written. Raises OSError of the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o644)
        # Held for as long as the process lives: who compacts leaves it alone.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.size = 0
        self.write(MAGIC)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
