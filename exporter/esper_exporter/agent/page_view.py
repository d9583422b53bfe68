"""A process's page as the agent sees it: its lines, and the newest values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esper_exporter.agent.layout_log import ColumnOf, LayoutReader, RowLabels, Schema
from esper_exporter.agent.owned_file import PageRefused
from esper_exporter.agent.page_file import TRIES, PageReader, Published
from esper_exporter.agent.share_directory import PAGE
from esper_exporter.metrics.table import escape_label_value

RUN_ID, GROUP_ID, RANK = "run_id", "group_id", "rank"

RunKey = tuple[str, str, str]
"""``run_id``, ``group_id`` (empty: the process itself) and ``rank``."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Every line that a page can have.

    ``cells`` (int64) are places in the page's values, ``families`` (int64) numbers in its schema,
    ``starts`` (object, bytes) the text of each line before its value, with the line break that
    precedes it. ``sources`` are the (run, group, rank) that each line belongs to, as numbers into
    ``runs``; metrics of the process itself have an empty group.
    """

    cells: NDArray[np.int64]
    families: NDArray[np.int64]
    starts: NDArray[np.object_]
    sources: NDArray[np.int64]
    runs: tuple[RunKey, ...]


@dataclass(slots=True, eq=False)
class PageView:
    """Follows one shared page.

    ``rank`` is the rank by which metrics of the process itself are labelled, beside the run that
    it works on: several processes on one page would otherwise report the same series.
    """

    directory: Path
    owners: frozenset[int]
    rank: int
    published: Published | None = None
    schema: Schema | None = None
    lines: Lines | None = None
    _reader: PageReader = field(init=False)
    _layout: LayoutReader = field(init=False)
    _lines_version: int = -1
    _row_lines: dict[int, tuple[str, RowLabels, list[bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reader = PageReader(self.directory / PAGE, self.owners)
        self._layout = LayoutReader(self.directory, self.owners)

    @property
    def torn(self) -> int:
        """Readings that were repeated because the writer overtook them."""
        return self._reader.torn

    def refresh(self) -> bool:
        """Read the newest publication; whether there is one. Raises PageRefused, OSError."""
        found = self._read()
        if found is None:
            return False
        self.published = found
        self.schema = self._layout.schema
        if self._lines_version != self._layout.version:
            self.lines = self._build(len(found.values))
            self._lines_version = self._layout.version
        return True

    def _read(self) -> Published | None:
        """The newest publication, and its part of the layout followed."""
        for attempt in range(TRIES):
            found = self._reader.read()
            try:
                if found is not None:
                    self._layout.follow(found.layout_generation, found.layout_bytes)
                return found
            except FileNotFoundError:
                # The writer began a new log meanwhile, and a newer publication names it.
                if attempt == TRIES - 1:
                    raise
        return None

    def rows_of(self, family: str) -> Iterator[tuple[RunKey, int, tuple[ColumnOf, ...]]]:
        """The rows of runs that have a family: the run, the row's first cell and its columns."""
        schema = self.schema
        if schema is None:
            return
        numbers = [n for n, each in enumerate(schema.families) if each.name == family]
        for start, (block, labels) in self._layout.rows.items():
            columns = schema.blocks[block]
            if numbers and any(column.family == numbers[0] for column in columns):
                found = dict(labels)
                if RUN_ID in found:
                    key = (found[RUN_ID], found.get(GROUP_ID, ""), found.get(RANK, ""))
                    yield key, start, columns

    def has_runs(self) -> bool:
        """Whether an event of a run has come."""
        return any(True for _ in self.rows_of("esper_run_failed"))

    def lit(self) -> tuple[str, ...]:
        """The set latches by label: ``op/nan``, ``gradients``."""
        schema, published = self.schema, self.published
        if schema is None or published is None:
            return ()
        found = []
        for start, (block, labels) in self._layout.rows.items():
            for place, column in enumerate(schema.blocks[block]):
                latch = schema.families[column.family].name.endswith("_latched")
                if latch and published.values[start + place] == 1.0:
                    own = [value for name, value in labels if name not in (RUN_ID, GROUP_ID, RANK)]
                    found.append("/".join(own))
        return tuple(sorted(found))

    def run_labels(self) -> tuple[str, str]:
        """The run and the rank that the process works on: of its newest run."""
        newest = ""
        rank = str(self.rank)
        for _, (_, labels) in sorted(self._layout.rows.items()):
            found = dict(labels)
            if RUN_ID in found:
                newest, rank = found[RUN_ID], found.get(RANK, rank)
        return newest, rank

    def _build(self, cells: int) -> Lines:
        schema = self.schema
        assert schema is not None
        run, rank = self.run_labels()
        places: list[int] = []
        families: list[int] = []
        starts: list[bytes] = []
        sources: list[int] = []
        runs: dict[RunKey, int] = {}
        kept: dict[int, tuple[str, RowLabels, list[bytes]]] = {}
        for start, (block, labels) in self._layout.rows.items():
            columns = schema.blocks[block]
            if start + len(columns) > cells:
                raise PageRefused("corrupt", "the layout has rows beyond the values")
            if labels[:1] and labels[0][0] == RUN_ID:
                found = dict(labels)
                key = (found[RUN_ID], found.get(GROUP_ID, ""), found.get(RANK, ""))
            else:
                key = (run, "", rank)
                labels = ((RUN_ID, run), (RANK, rank), *labels)
            before = self._row_lines.get(start)
            if before is not None and before[0] == block and before[1] == labels:
                kept[start] = before
            else:
                kept[start] = block, labels, _starts(schema, block, labels)
            source = runs.setdefault(key, len(runs))
            places += range(start, start + len(columns))
            families += (column.family for column in columns)
            starts += kept[start][2]
            sources += [source] * len(columns)
        self._row_lines = kept
        texts = np.empty(len(starts), dtype=object)
        texts[:] = starts
        return Lines(
            np.array(places, np.int64),
            np.array(families, np.int64),
            texts,
            np.array(sources, np.int64),
            tuple(runs),
        )

    def close(self) -> None:
        """Close the file descriptor."""
        self._reader.close()


def _starts(schema: Schema, block: str, labels: RowLabels) -> list[bytes]:
    common = ",".join(f'{name}="{escape_label_value(value)}"' for name, value in labels)
    starts = []
    for column in schema.blocks[block]:
        own = "".join(f',{n}="{escape_label_value(v)}"' for n, v in column.labels)
        name = schema.families[column.family].name + column.suffix
        starts.append(f"\n{name}{{{common}{own}}} ".encode())
    return starts
