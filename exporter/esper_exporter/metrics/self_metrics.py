"""The exporter's own metrics: what it took in, what it refused, what it costs."""

from __future__ import annotations

import platform
from datetime import datetime

from esper_exporter import __version__
from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.rows import RowSet, TallyRows
from esper_exporter.metrics.table import ABSENT, ValueTable
from esper_exporter.shutdown.hub import HubHealth
from esper_exporter.state import counted
from esper_exporter.state.counters import Counter, Distributions, Histogram, HistogramRow, Tallies

_EMITS = HistogramRow(((counted.EMIT_DURATION, ()),))


class OwnMetrics:
    """Owns the exporter's counters and their rows. Its owner calls it under one lock."""

    def __init__(self, table: ValueTable, blocks: Blocks, max_series: int, started: float) -> None:
        self._tallies = Tallies(counted.OF_EXPORTER)
        self._distributions = Distributions(counted.OF_EXPORTER)
        # Nothing can be reported of a row that cannot be written: the report would be a row.
        self._rows = TallyRows(table, counted.OF_EXPORTER, (), lambda: None)
        self._gauges = RowSet(table, "exporter", (), ())
        self._columns = [metric.name for metric in blocks.catalogue.block("exporter")]
        build = RowSet(
            table,
            "esper_exporter_build_info",
            (),
            ("version", "python_version"),
        )
        build.write([1.0], __version__, platform.python_version())
        self._seams = RowSet(table, "seam", (), ("seam",))
        self._collectors = RowSet(table, "collector", (), ("collector",))
        self._collector_columns = [metric.name for metric in blocks.catalogue.block("collector")]
        self._started = started
        self._max_series = max_series
        self.last_event: datetime | None = None
        self.journal_active: bool | None = None
        self._events = 0
        self._hub_counts: dict[tuple[Counter, str], float] = {}
        self.series = 0

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Count something."""
        self._tallies.add(counter, *labels, by=by)

    def rejected(self, reason: str) -> None:
        """Count an event that could not be used."""
        self._tallies.add(counted.EVENTS_REJECTED, reason)

    def hub(self, health: HubHealth) -> None:
        """Bring the hub's counters up to date. A hub that was reset counts from 0 again."""
        for counter, counts in (
            (counted.HUB_DROPPED, health.dropped),
            (counted.HUB_DELIVERED, health.delivered),
        ):
            for queue, count in counts.items():
                key = counter, queue
                before = self._hub_counts.get(key, 0.0)
                self._hub_counts[key] = count
                self._tallies.add(counter, queue, by=count - before if count >= before else count)

    def took(self, seconds: float) -> None:
        """An event was taken in, good or bad."""
        self._events += 1
        self._distributions.hold(_EMITS, (seconds,))

    def seam(self, name: str, present: bool) -> None:
        """Whether the trainer has a function that a group of fields is measured at."""
        self._seams.write([float(present)], name)

    def observe(self, histogram: Histogram, seconds: float) -> None:
        """Observe a duration."""
        self._distributions.observe(histogram, seconds)

    def collected(self, name: str, success: bool, seconds: float) -> None:
        """How a collector did for the page that comes now."""
        told = {
            "esper_exporter_collector_success": float(success),
            "esper_exporter_collector_duration_seconds": seconds,
        }
        self._collectors.write([told[column] for column in self._collector_columns], name)

    @property
    def events(self) -> int:
        """Events taken in so far, good or bad."""
        return self._events

    def refresh(self, runs: int, in_flight: int) -> None:
        """Write the rows."""
        cells = {
            "esper_exporter_start_timestamp_seconds": self._started,
            "esper_exporter_runs": float(runs),
            "esper_exporter_series": float(self.series),
            "esper_exporter_series_limit": float(self._max_series),
            "esper_exporter_events_in_flight": float(in_flight),
            "esper_exporter_journal_active": ABSENT
            if self.journal_active is None
            else float(self.journal_active),
            "esper_exporter_last_event_timestamp_seconds": ABSENT
            if self.last_event is None
            else self.last_event.timestamp(),
        }
        self._gauges.write([cells[name] for name in self._columns])
        self._tallies.add(counted.EMITTED, by=self._events - self._tallies.get(counted.EMITTED))
        self._rows.write(self._tallies, self._distributions)
