"""Store the values of a process's page in a file that outlives the process.

The file holds two buffers and a slot for each. A writer fills the buffer that is not current,
then its slot. A writer that dies half-way leaves the other buffer intact, and the slots'
checksums show the reader which of the two is valid.

The writer uses ``pwrite``, not a memory map: on a full or truncated file a store through a map
kills the process with SIGBUS, whereas a write returns an error. Readers use ``pread`` for the
same reason.

Layout, little-endian: 4,096 bytes of header (magic, format, cells that a buffer has room for; at
64 and 128 the two slots), then the two buffers of float64.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from esper_exporter.agent.owned_file import PageRefused, open_owned

MAGIC = b"ESPRPAGE"
FORMAT = 1
HEADER_BYTES = 4096
CELL_BYTES = 8
MAX_CELLS = 4_000_000
MIN_CELLS = 4096
TRIES = 8
"""Readings without a valid buffer, and without a newer publication in between, before a page
counts as corrupt."""
READ_SECONDS = 1.0
"""The longest reading while a writer keeps overtaking it."""

_FILE = struct.Struct("<8sII")
_SLOT = struct.Struct("<QdIQII")
_SLOT_AT = (64, 128)
_SLOT_BYTES = _SLOT.size + 4

Slot = tuple[int, float, int, int, int, int]
"""Sequence, time, generation and bytes of the layout, cells, checksum of the buffer."""


@dataclass(frozen=True, slots=True)
class Published:
    """One whole publication.

    ``values`` are the table's cells (float64), ``layout_generation`` and ``layout_bytes`` name
    the part of the layout log that describes them, ``at`` is the Unix time in seconds.
    """

    sequence: int
    at: float
    layout_generation: int
    layout_bytes: int
    values: NDArray[np.float64]


def _checksum(data: bytes | memoryview | NDArray[np.float64]) -> int:
    return int(isal_zlib.crc32(data))


class PageWriter:
    """Writes a process's publications. Not thread-safe. Raises OSError if a write fails; earlier
    publications stay readable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capacity = 0
        self._handle = -1
        self._sequence = 0

    def publish(
        self, values: NDArray[np.float64], at: float, layout_generation: int, layout_bytes: int
    ) -> None:
        """Publish these values."""
        if len(values) > self._capacity:
            self._make_room(len(values))
        self._sequence += 1
        which = self._sequence & 1
        os.pwrite(self._handle, values.data, self._buffer_at(which))
        slot = _SLOT.pack(
            self._sequence, at, layout_generation, layout_bytes, len(values), _checksum(values)
        )
        os.pwrite(self._handle, slot + struct.pack("<I", _checksum(slot)), _SLOT_AT[which])

    def _buffer_at(self, which: int) -> int:
        return HEADER_BYTES + which * self._capacity * CELL_BYTES

    def _make_room(self, cells: int) -> None:
        """A larger file in the place of the old one. Its space is reserved here, so that a disk
        that fills up later cannot stop a publication."""
        if cells > MAX_CELLS:
            raise OSError(f"{cells} values are more than a shared page holds ({MAX_CELLS})")
        capacity = max(MIN_CELLS, 1 << (cells - 1).bit_length())
        beside = self._path.with_name(self._path.name + ".new")
        handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, HEADER_BYTES + 2 * capacity * CELL_BYTES)
            os.pwrite(handle, _FILE.pack(MAGIC, FORMAT, capacity), 0)
            if self._handle >= 0:
                self._copy_current(handle, capacity)
            beside.replace(self._path)
        except BaseException:
            os.close(handle)
            beside.unlink(missing_ok=True)
            raise
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._capacity = handle, capacity

    def _copy_current(self, handle: int, capacity: int) -> None:
        """Copy the current page, so that the new file always has one."""
        which = self._sequence & 1
        size = self._capacity * CELL_BYTES
        data = os.pread(self._handle, size, self._buffer_at(which))
        os.pwrite(handle, data, HEADER_BYTES + which * capacity * CELL_BYTES)
        slot = os.pread(self._handle, _SLOT_BYTES, _SLOT_AT[which])
        os.pwrite(handle, slot, _SLOT_AT[which])

    def close(self) -> None:
        """Close the file descriptor; the file stays."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle, self._capacity = -1, 0


class PageReader:
    """Reads publications of one process, alive or not. ``torn`` counts the readings that had to
    be repeated because the writer overtook them."""

    def __init__(self, path: Path, owners: frozenset[int]) -> None:
        self._path = path
        self._owners = owners
        self._handle = -1
        self._inode = (0, 0)
        self._capacity = 0
        self.torn = 0

    def read(self) -> Published | None:
        """The newest whole publication, None before the first. Raises PageRefused, OSError.

        Two publications during one reading leave it without a valid buffer. This happens to a
        sound file as often as its writer publishes; only a file that does not change is corrupt.
        """
        until = monotonic() + READ_SECONDS
        idle, newest = 0, -1
        while idle < TRIES:
            self._follow()
            slots = self._slots()
            found = self._read(slots)
            if found is not None or not slots:
                return found
            self.torn += 1
            idle = idle + 1 if slots[0][0] == newest else 0
            newest = slots[0][0]
            if monotonic() > until:
                raise PageRefused("busy", f"{self._path}: its writer overtook every reading")
        raise PageRefused("corrupt", f"{self._path}: no buffer has a valid checksum")

    def _follow(self) -> None:
        """Open the file, again when the writer has put a larger one in its place."""
        found = os.stat(self._path, follow_symlinks=False)
        inode = (found.st_dev, found.st_ino)
        if self._handle >= 0 and inode == self._inode:
            return
        self.close()
        limit = HEADER_BYTES + 4 * MAX_CELLS * CELL_BYTES
        self._handle = open_owned(self._path, self._owners, limit)
        self._inode = inode
        head = os.pread(self._handle, _FILE.size, 0)
        if len(head) < _FILE.size:
            raise PageRefused("truncated", f"{self._path} has no whole header")
        magic, version, self._capacity = _FILE.unpack(head)
        if magic != MAGIC:
            raise PageRefused("corrupt", f"{self._path} is not a shared page")
        if version != FORMAT:
            raise PageRefused("version", f"{self._path} has format {version}, not {FORMAT}")
        if not 0 < self._capacity <= 2 * MAX_CELLS:
            raise PageRefused("corrupt", f"{self._path} claims room for {self._capacity} values")

    def _slots(self) -> list[Slot]:
        """The slots whose own checksum is right, newest first."""
        slots = []
        for at in _SLOT_AT:
            raw = os.pread(self._handle, _SLOT_BYTES, at)
            if len(raw) < _SLOT_BYTES:
                raise PageRefused("truncated", f"{self._path} ends within its header")
            slot = raw[: _SLOT.size]
            if slot.strip(b"\0") and struct.unpack("<I", raw[_SLOT.size :])[0] == _checksum(slot):
                slots.append(_SLOT.unpack(slot))
        return sorted(slots, reverse=True)

    def _read(self, slots: list[Slot]) -> Published | None:
        for sequence, at, generation, layout_bytes, cells, checksum in slots:
            if cells > self._capacity:
                continue
            start = HEADER_BYTES + (sequence & 1) * self._capacity * CELL_BYTES
            data = os.pread(self._handle, cells * CELL_BYTES, start)
            if len(data) < cells * CELL_BYTES:
                raise PageRefused("truncated", f"{self._path} ends within a buffer")
            if _checksum(data) == checksum:
                values = np.frombuffer(data, np.float64)
                return Published(sequence, at, generation, layout_bytes, values)
        return None

    def close(self) -> None:
        """Close the file descriptor."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
