"""The lines of a block and the event type that each one shows.

Telemetry of one trainer has the type at the same place of nearly every line: there it is compared
for all lines at once, and only the others are searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

TYPE = re.compile(rb'"event_type"\s*:\s*"([A-Za-z_]{1,64})"')

_VIEW = np.dtype([("length", "<i4"), ("prefix", "<u4"), ("buffer", "<i4"), ("offset", "<i4")])
"""A text of an Arrow string view that is longer than twelve bytes."""

_MARGIN = 80
"""Bytes behind a type's beginning that can be compared without looking past the block's end."""


class LineIndex:
    """The lines of a block, each with its newline, and the kinds of those that show theirs.

    ``kinds`` maps the names of event types to their groups.
    """

    def __init__(self, block: bytes | memoryview, kinds: Mapping[bytes, str]) -> None:
        self._block = block
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 0x0A) + 1
        starts = np.concatenate([[0], ends])
        self._offsets = starts if starts[-1] == len(block) else np.append(starts, len(block))
        self.starts = self._offsets[:-1]
        self.sizes = np.diff(self._offsets)
        self._names: dict[str, list[bytes]] = {}
        for name, kind in kinds.items():
            self._names.setdefault(kind, []).append(name)
        self._left = np.ones(len(self.starts), bool)

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, place: int) -> bytes:
        """One line without its newline."""
        return bytes(self._block[self.starts[place] : self._offsets[place + 1]]).rstrip(b"\n")

    def by_kind(self) -> Iterator[tuple[str, Any]]:
        """(kind, places of its lines) where the type was recognised; `others` gives the rest."""
        found = next(
            filter(
                None,
                (
                    TYPE.search(self._block, self.starts[place], self._offsets[place + 1])
                    for place in range(min(8, len(self)))
                ),
            ),
            None,
        )
        if found is None:
            return
        line = np.searchsorted(self.starts, found.start(), "right") - 1
        key = bytes(self._block[found.start() : found.start(1)])
        within = found.start() - self.starts[line]
        at = self.starts + within
        self._left = at + len(key) + _MARGIN >= len(self._block)
        places = np.flatnonzero(~self._left)
        here = self._window(len(key))[at[places]] == key
        self._left[places[~here]] = True
        places = places[here]
        for kind, names in self._names.items():
            if not len(places):
                break
            hit = np.zeros(len(places), bool)
            for name in names:
                hit |= self._window(len(name) + 1)[at[places] + len(key)] == name + b'"'
            if hit.any():
                yield kind, places[hit]
                places = places[~hit]
        self._left[places] = True

    def others(self) -> Iterator[int]:
        """Places of the lines that `by_kind` did not give."""
        yield from np.flatnonzero(self._left).tolist()

    def arrow(self, places: Any) -> pa.Array:
        """Lines as an Arrow array of texts that lie in the block; they are not copied.

        The block must be UTF-8, and a line at least 13 bytes long.
        """
        import pyarrow as pa

        starts = self.starts[places]
        views = np.zeros(len(places), _VIEW)
        views["length"] = self.sizes[places]
        views["prefix"] = np.ndarray((len(self._block) - 3,), "<u4", self._block, strides=(1,))[
            starts
        ]
        views["offset"] = starts
        buffers = [None, pa.py_buffer(views), pa.py_buffer(self._block)]
        return pa.Array.from_buffers(pa.string_view(), len(places), buffers)

    def _window(self, width: int) -> Any:
        """The ``width`` bytes from each byte of the block on; nothing is copied."""
        count = len(self._block) - width + 1
        return np.ndarray((count,), f"S{width}", self._block, strides=(1,))
