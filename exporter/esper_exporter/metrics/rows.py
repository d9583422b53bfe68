"""Rows of one block by key: made when first needed, given up together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.table import Labels, Row, ValueTable

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
    """Rows of counters and histograms: one a name and set of label values."""

    def __init__(self, table: ValueTable, blocks: Blocks, base: Labels) -> None:
        self._table = table
        self._base = tuple(base)
        self._sets: dict[str, RowSet] = {}
        for metric in (*blocks.counters.values(), *blocks.histograms.values()):
            names = metric.labels
            if names[: len(base)] == tuple(name for name, _ in base):
                own = names[len(base) :]
                self._sets[metric.name] = RowSet(table, metric.name, base, own)

    def begin(self, blocks: Blocks, names: Iterable[str]) -> None:
        """Put everything on the page at 0, with all label values that are known beforehand."""
        for name in names:
            metric = blocks.counters.get(name) or blocks.histograms[name]
            for labels in metric.initial:
                row = self._sets[name].get(*labels)
                if row is not None:
                    self._table.values[row.start : row.stop] = 0.0

    def write(self, name: str, labels: tuple[str, ...], values: list[float]) -> None:
        self._sets[name].write(values, *labels)

    def remove(self) -> None:
        for rows in self._sets.values():
            rows.remove()
