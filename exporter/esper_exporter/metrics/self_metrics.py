"""The exporter's own metrics: what it read, what it refused, what it costs."""

from __future__ import annotations

import platform
from collections.abc import Callable

from esper_exporter import __version__
from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.rows import RowSet, TallyRows
from esper_exporter.metrics.table import ABSENT, ValueTable
from esper_exporter.state import counted
from esper_exporter.state.self_counts import SelfCounts


class OwnMetrics:
    """Owns the rows of what the exporter reports of itself. Its owner calls it under one lock."""

    def __init__(
        self,
        counts: SelfCounts,
        table: ValueTable,
        blocks: Blocks,
        max_series: int,
        clock: Callable[[], float],
    ) -> None:
        self.counts = counts
        # Nothing can be reported of a row that cannot be written: the report would be a row.
        self._rows = TallyRows(table, counted.OF_EXPORTER, (), lambda: None)
        self._gauges = RowSet(table, "exporter", (), ())
        self._columns = [metric.name for metric in blocks.catalogue.block("exporter")]
        build = RowSet(table, "esper_exporter_build_info", (), ("version", "python_version"))
        build.write([1.0], __version__, platform.python_version())
        self._seams = RowSet(table, "seam", (), ("seam",))
        self._collectors = RowSet(table, "collector", (), ("collector",))
        self._collector_columns = [metric.name for metric in blocks.catalogue.block("collector")]
        self._clock = clock
        self._started = clock()
        self._max_series = max_series
        self.journal_active: bool | None = None
        self.push_backlog: float | None = None
        self.push_success: float | None = None
        self.series = 0

    def seam(self, name: str, present: bool) -> None:
        """Whether the trainer has a function that a group of fields is measured at."""
        self._seams.write([float(present)], name)

    def collected(self, name: str, success: bool, seconds: float) -> None:
        """How a collector did for the page that comes now."""
        results = {
            "esper_exporter_collector_success": float(success),
            "esper_exporter_collector_duration_seconds": seconds,
        }
        self._collectors.write([results[column] for column in self._collector_columns], name)

    def refresh(self, runs: int, in_flight: int) -> None:
        """Write the rows."""
        counts = self.counts
        cells = {
            "esper_exporter_start_timestamp_seconds": self._started,
            "esper_exporter_clock_timestamp_seconds": self._clock(),
            "esper_exporter_runs": float(runs),
            "esper_exporter_series": float(self.series),
            "esper_exporter_series_limit": float(self._max_series),
            "esper_exporter_events_in_flight": float(in_flight),
            "esper_exporter_journal_active": ABSENT
            if self.journal_active is None
            else float(self.journal_active),
            "esper_exporter_push_backlog_bytes": ABSENT
            if self.push_backlog is None
            else self.push_backlog,
            "esper_exporter_push_last_success_timestamp_seconds": ABSENT
            if self.push_success is None
            else self.push_success,
            "esper_exporter_last_event_timestamp_seconds": ABSENT
            if counts.last_event is None
            else counts.last_event,
        }
        self._gauges.write([cells[name] for name in self._columns])
        counts.settle()
        self._rows.write(counts.tallies, counts.distributions)
