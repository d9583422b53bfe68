"""The live page: one consistent state of runs, machine and exporter, captured and rendered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from esper_exporter.log_once import LogOnce
from esper_exporter.metrics.exposition import Capture, capture
from esper_exporter.metrics.renderer import OWN_COLLECTOR, Renderer
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.self_metrics import OwnMetrics
from esper_exporter.metrics.table import ValueTable
from esper_exporter.probes.samplers import Vitals
from esper_exporter.state import counted
from esper_exporter.state.hub import HubLink
from esper_exporter.state.registry import RunRegistry
from esper_exporter.state.self_counts import SelfCounts
from esper_exporter.state.state_lock import WAIT_SECONDS, StateLock

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from esper_exporter.metrics.user_collectors import Result


class PublishErrors:
    """Counts and logs errors of writing rows, with the state held; ``failed`` is true after any."""

    def __init__(self, counts: SelfCounts, log_once: LogOnce) -> None:
        self._counts = counts
        self._log_once = log_once
        self.failed = False

    def __call__(self, where: str) -> None:
        """Count the exception that is being handled."""
        self.failed = True
        self._counts.count(counted.INTERNAL_ERRORS, where)
        self._log_once.log_error(where)


class LivePage:
    """Owns the rows of the exporter itself, and renders them with those of runs and machine.

    ``in_flight`` returns the events that are being read, ``journal_active`` whether the journal
    still writes, None without a journal, ``push`` the bytes that wait to be pushed and when some
    were last taken, None where nothing is or was. ``on_older`` is called with the moment
    (``time.monotonic()``) of the capture that a page shows where it is not the newest state.
    Thread-safe.
    """

    def __init__(
        self,
        lock: StateLock,
        table: ValueTable,
        own: OwnMetrics,
        runs: RunRegistry,
        vitals: Vitals,
        errors: PublishErrors,
        hub: HubLink,
        in_flight: Callable[[], int],
        journal_active: Callable[[], bool | None],
        push: Callable[[], tuple[float | None, float | None]],
        on_older: Callable[[float], None],
    ) -> None:
        self._lock = lock
        self._table = table
        self._own = own
        self._runs = runs
        self._vitals = vitals
        self._errors = errors
        self._hub = hub
        self._in_flight = in_flight
        self._journal_active = journal_active
        self._push = push
        self._on_older = on_older
        self._captured = time.monotonic(), capture(table, None)
        self.renderer = Renderer(
            self.capture, lambda: vitals.reports_process, lambda: lock.held_here
        )

    def capture(self, collected: Sequence[Result] = ()) -> Capture:
        """One consistent state of everything; ``collected`` is how added collectors did.

        Where a thread keeps the state to itself, or asks for a page amid its own change, it is
        the state that was captured last.
        """
        health = None if self._lock.held_here else self._hub.health()
        if health is not None:
            self._lock.submit(partial(self._own.counts.follow_hub, health), wait=0.0)
        return self._lock.read(
            partial(self._capture_now, collected), self._capture_before, WAIT_SECONDS
        )

    def _capture_before(self) -> Capture:
        captured_at, captured = self._captured
        self._on_older(captured_at)
        return captured

    def _capture_now(self, collected: Sequence[Result]) -> Capture:
        begun = time.perf_counter()
        own, errors = self._own, self._errors
        errors.failed = False
        try:
            self._runs.refresh()
        except Exception:
            errors("publish")
        try:
            self._vitals.refresh(entry.state for entry in self._runs.everything())
        except Exception:
            errors("vitals")
        for result in collected:
            own.collected(result.name, result.success, result.seconds)
        own.collected(OWN_COLLECTOR, not errors.failed, time.perf_counter() - begun)
        own.series = self.renderer.series
        own.journal_active = self._journal_active()
        own.push_backlog, own.push_success = self._push()
        try:
            own.refresh(len(self._runs.everything()), self._in_flight())
        except Exception:
            errors("publish")
        taken = capture(self._table, self._captured[1])
        self._captured = time.monotonic(), taken
        return taken

    def collector(self) -> Collector:
        """The page as a collector for a prometheus_client registry."""
        from esper_exporter.metrics.collector import TableCollector

        # A registry has the process' own metrics already, or excludes them.
        metrics = tuple(m for m in compiled().catalogue.metrics if m.name.startswith("esper_"))
        return TableCollector(self.capture, metrics)
