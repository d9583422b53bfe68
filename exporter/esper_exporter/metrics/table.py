"""The value table: every number of the page in one flat float64 array, apart from its names.

A *row* is one thing (a run, a head, a slot), a *column* one sample of it. Rows of a block are
contiguous cells, so filling one is a single write. Names (label strings) are kept
beside the values and change only when things come and go, which is what keeps a scrape cheap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from esper_exporter.metrics.metric import Column, Metric, columns_of

# A quiet NaN with a payload of our own marks "no sample here". It survives copies of the array
# (and a file that maps it), and no measurement produces it: those carry the default payload.
ABSENT_BITS = 0x7FF8_0000_0E59_E400
ABSENT: float = struct.unpack("<d", struct.pack("<Q", ABSENT_BITS))[0]

CELL_BYTES = 8

Values = NDArray[np.float64]
Labels = Sequence[tuple[str, str]]


@lru_cache(maxsize=64)
def _packer(cells: int) -> Callable[..., None]:
    return struct.Struct(f"={cells}d").pack_into


def escape_label_value(value: str) -> str:
    """Escape a label value for both exposition formats; lone surrogates become ``?``."""
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of thing: the metrics that describe it, and the columns they take in a row."""

    name: str
    metrics: tuple[Metric, ...]
    columns: tuple[Column, ...]
    spans: dict[str, tuple[int, int]]
    """Metric name → first and one-past-last column."""
    pack: Callable[..., None]
    """Writes a row's float64 values into memory: ``pack(memory, offset, *values)``."""

    @classmethod
    def of(cls, name: str, metrics: Iterable[Metric]) -> Block:
        chosen = tuple(metrics)
        columns: list[Column] = []
        spans: dict[str, tuple[int, int]] = {}
        for metric in chosen:
            first = len(columns)
            columns += columns_of(metric)
            spans[metric.name] = (first, len(columns))
        pack = struct.Struct(f"={len(columns)}d").pack_into
        return cls(name, chosen, tuple(columns), spans, pack)


@dataclass(slots=True, eq=False)
class Row:
    """Where one thing's cells lie, and the rendered start of each of its lines."""

    block: Block
    labels: tuple[tuple[str, str], ...]
    start: int
    stop: int
    prefixes: list[bytes] = field(repr=False)
    place: tuple[tuple[int, str], ...] = ()
    """Sorts rows of which there may be many, numbers by value; empty keeps the order of coming."""


def _sort_key(value: str) -> tuple[int, str]:
    return (len(value), value) if value.isdecimal() else (0, value)


def render_prefixes(block: Block, labels: Labels) -> list[bytes]:
    """The text before the value, ``name{labels} ``, for each column of a row."""
    common = ",".join(f'{name}="{escape_label_value(value)}"' for name, value in labels)
    prefixes = []
    for column in block.columns:
        own = ",".join(f'{n}="{escape_label_value(v)}"' for n, v in column.labels)
        inside = f"{common},{own}" if common and own else common or own
        sample = column.metric.name + column.suffix
        prefixes.append((f"{sample}{{{inside}}} " if inside else f"{sample} ").encode())
    return prefixes


class ValueTable:
    """All values of one page, and the rows they belong to.

    Not thread-safe: its owner writes rows and takes copies under one lock.
    ``allocate(n)`` returns zeroed or arbitrary float64 memory for ``n`` cells; the table fills it.
    ``max_series`` is the number of cells from which capped rows are refused.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        *,
        max_series: int = 100_000,
        allocate: Callable[[int], Values] | None = None,
    ) -> None:
        self._allocate = allocate or (lambda n: np.empty(n, dtype=np.float64))
        self.blocks = {block.name: block for block in blocks}
        self.rows: dict[str, list[Row]] = {name: [] for name in self.blocks}
        self.max_series = max_series
        self.used = 0
        self.live = 0
        self.version = 0
        self._free: dict[int, list[int]] = {}
        self.values = self._new_memory(min(1024, max_series))

    def _new_memory(self, size: int) -> Values:
        memory = self._allocate(size)
        memory[:] = ABSENT
        self._bytes = memory.data.cast("B")
        return memory

    def write(self, row: Row, values: Iterable[float]) -> None:
        """Fill a row: as many numbers as its block has columns, ``ABSENT`` for none.

        Packing them is three times as fast as numpy's assignment from a sequence.
        """
        row.block.pack(self._bytes, row.start * CELL_BYTES, *values)

    def write_rows(self, rows: Sequence[Row], values: Iterable[Sequence[float]]) -> None:
        """Fill many rows; those that lie one behind the other in memory in a single write."""
        if len(rows) == 1:
            self.write(rows[0], next(iter(values)))
        elif rows and all(one.stop == other.start for one, other in pairwise(rows)):
            numbers: list[float] = []
            for of_row in values:
                numbers += of_row
            _packer(len(numbers))(self._bytes, rows[0].start * CELL_BYTES, *numbers)
        else:
            for row, of_row in zip(rows, values, strict=True):
                self.write(row, of_row)

    def add_row(self, block_name: str, labels: Labels, capped: bool = True) -> Row | None:
        """A new row with every cell absent, or None when the cap on series is reached.

        A row that is not ``capped`` always finds room: what there are few of, and what must not
        be lost because of things that there are many of.
        """
        block = self.blocks[block_name]
        width = len(block.columns)
        if capped and self.live + width > self.max_series:
            return None
        free = self._free.get(width)
        if free:
            start = free.pop()
        else:
            start = self.used
            self._ensure(start + width)
            self.used = start + width
        prefixes = render_prefixes(block, labels)
        place = tuple(_sort_key(value) for _, value in labels) if capped else ()
        row = Row(block, tuple(labels), start, start + width, prefixes, place)
        self.rows[block_name].append(row)
        self.live += width
        self.version += 1
        return row

    def _ensure(self, cells: int) -> None:
        if cells > len(self.values):
            before = self.values
            self.values = self._new_memory(max(cells, 2 * len(before)))
            self.values[: self.used] = before[: self.used]

    def remove_row(self, row: Row) -> None:
        """Take a row off the page; its cells are used again."""
        self.clear(row)
        self.rows[row.block.name].remove(row)
        self._free.setdefault(row.stop - row.start, []).append(row.start)
        self.live -= row.stop - row.start
        self.version += 1

    def clear(self, row: Row) -> None:
        """Make every cell of a row absent."""
        self.values[row.start : row.stop] = ABSENT

    def copy(self) -> Values:
        """The values as they are now, one memcpy."""
        return self.values[: self.used].copy()
