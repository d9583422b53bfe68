"""Rows of one block by key: made when first needed, given up together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.table import ABSENT, Labels, Row, ValueTable
from esper_exporter.probes.samples import Cell, Cells
from esper_exporter.state.counters import Counter, Distributions, Histogram, Tallies

Drop = Callable[[], None]
"""Called each time something finds no room below the cap on series."""


class RowSet:
    """Rows of one block by key, made when first needed and given up together.

    With ``drop`` they are of a kind that there may be too many of: they fall under the cap on
    series, and ``drop`` is called for each that finds no room.
    """

    def __init__(
        self,
        table: ValueTable,
        block: str,
        base: Labels,
        names: tuple[str, ...],
        drop: Drop | None = None,
    ) -> None:
        self._table = table
        self._block = block
        self._base = tuple(base)
        self._names = names
        self._drop = drop
        self.rows: dict[tuple[str, ...], Row] = {}

    def get(self, *key: str) -> Row | None:
        """The row for a key, or None if there is no room for it."""
        row = self.rows.get(key)
        if row is None:
            labels = (*self._base, *zip(self._names, key, strict=True))
            row = self._table.add_row(self._block, labels, capped=self._drop is not None)
            if row is None:
                if self._drop is not None:
                    self._drop()
                return None
            self.rows[key] = row
        return row

    def write(self, values: list[float], *key: str) -> None:
        """Fill the row for a key."""
        row = self.get(*key)
        if row is not None:
            self._table.write(row, values)

    def clear(self, *key: str) -> None:
        """Make a row's cells absent; the row stays, for things that come back."""
        row = self.rows.get(key)
        if row is not None:
            self._table.clear(row)

    def keep(self, wanted: Iterable[tuple[str, ...]]) -> None:
        """Make all rows absent but the wanted ones."""
        kept = set(wanted)
        for key, row in self.rows.items():
            if key not in kept:
                self._table.clear(row)

    def discard(self, *key: str) -> None:
        """Take one row off the page, for things that do not come back."""
        row = self.rows.pop(key, None)
        if row is not None:
            self._table.remove_row(row)

    def remove(self) -> None:
        """Take all rows off the page."""
        for row in self.rows.values():
            self._table.remove_row(row)
        self.rows.clear()


class TallyRows:
    """Rows of counters and histograms: one a label set. They mirror what was counted.

    A row that cannot be written costs only itself and is reported to ``on_error``.
    """

    def __init__(
        self,
        table: ValueTable,
        declared: Iterable[Counter | Histogram],
        base: Labels,
        on_error: Callable[[], None],
    ) -> None:
        self._on_error = on_error
        self._sets = {one: RowSet(table, one.name, base, one.labels) for one in declared}

    def write(self, tallies: Tallies, distributions: Distributions) -> None:
        """Write what changed since the last time."""
        for (counter, labels), value in tallies.changes().items():
            try:
                if value is None:
                    self._sets[counter].discard(*labels)
                else:
                    self._sets[counter].write([value], *labels)
            except Exception:
                self._on_error()
        values = distributions.values
        observed, distributions.changed = distributions.changed, {}
        for histogram, labels in observed:
            try:
                cells = values[histogram, labels].cells()
                self._sets[histogram].write(cells, *labels)
            except Exception:
                self._on_error()

    def remove(self) -> None:
        """Take all rows off the page."""
        for rows in self._sets.values():
            rows.remove()


class Mirror:
    """The rows of one block that show the current report and nothing else: of the machine, of its
    GPUs. Its owner calls it under the exporter's lock."""

    def __init__(self, table: ValueTable, blocks: Blocks, block: str) -> None:
        columns = table.blocks[block].columns
        own = {name for column in columns for name, _ in column.labels}
        names = next(metric.labels for metric in blocks.catalogue.block(block))
        self._columns: list[Cell] = [
            (column.metric.name, *(value for _, value in column.labels)) for column in columns
        ]
        self._rows = RowSet(table, block, (), tuple(name for name in names if name not in own))

    def show(self, wanted: Mapping[tuple[str, ...], Cells]) -> None:
        """Show these rows, by the values of their labels; rows that were shown before and are not
        wanted any more go."""
        for key in self._rows.rows.keys() - wanted.keys():
            self._rows.discard(*key)
        for key, cells in wanted.items():
            self._rows.write([cells.get(column, ABSENT) for column in self._columns], *key)
