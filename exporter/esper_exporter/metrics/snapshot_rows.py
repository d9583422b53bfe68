"""Rows that show the current report, and nothing else: of the machine, and of its GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.rows import RowSet
from esper_exporter.metrics.table import ABSENT, ValueTable
from esper_exporter.probes.samples import Cell, Cells


class Mirror:
    """The rows of one block. Its owner calls it under the exporter's lock."""

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
