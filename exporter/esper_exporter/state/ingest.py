"""What comes in: events and snapshots brought to their runs, and counted where they cannot be."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime

from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import Rejected
from esper_exporter.log_once import LogOnce
from esper_exporter.metrics.self_metrics import OwnMetrics
from esper_exporter.state import counted
from esper_exporter.state.registry import Faults, NoRun, RunRegistry


class Ingest:
    """The way in, in the process that made it. Nothing here raises.

    ``lock`` is held while the runs change; ``on_fault`` is called without it after a latch was
    lit.
    """

    def __init__(
        self,
        lock: threading.Lock,
        runs: RunRegistry,
        own: OwnMetrics,
        log_once: LogOnce,
        clock: Callable[[], datetime],
        on_fault: Callable[[Faults], None],
    ) -> None:
        self._lock = lock
        self._runs = runs
        self._own = own
        self._log_once = log_once
        self._clock = clock
        self._on_fault = on_fault
        self._pid = os.getpid()
        self.in_flight = 0

    def take(self, get: Callable[[], object]) -> None:
        """Take in one event: what ``get`` returns, which may raise Rejected."""
        if os.getpid() != self._pid:
            return  # a forked child has the parent's exporter in memory and is not it
        begun = time.perf_counter()
        self.in_flight += 1
        try:
            with self._lock:
                try:
                    self._bring(get())
                except Rejected as refused:
                    self._refuse(refused)
                except NoRun as refused:
                    self._own.count(counted.EVENTS_REJECTED, refused.reason)
                faults = self._runs.faults()
                self._own.took(time.perf_counter() - begun)
            if faults.any:
                self._on_fault(faults)
        except Exception:
            self._log_once.error("emit")
        finally:
            self.in_flight -= 1

    def _bring(self, obj: object) -> None:
        event = read(obj, self._clock)
        self._own.last_event = self._clock()
        if event.ignored:
            self._own.count(counted.FIELDS_IGNORED, by=float(len(event.ignored)))
            self._log_once.warn(
                f"{event.name}: fields left out, wrong type: {', '.join(event.ignored)}"
            )
        duplicate = self._runs.take(event, self._own.scrapes)
        if duplicate is not None:
            self._own.count(counted.EVENTS_DUPLICATE, duplicate)

    def _refuse(self, refused: Rejected) -> None:
        self._own.count(counted.EVENTS_REJECTED, refused.reason)
        self._log_once.warn(f"event refused: {refused}")
        if refused.event is not None:
            self._runs.salvage(refused.event)

    def take_snapshot(self, snapshot: object, group_id: str | None) -> None:
        """Take in an aggregated snapshot; ``group_id`` None: its own, or "default"."""
        if os.getpid() != self._pid:
            return
        try:
            from esper_exporter.state.snapshot_import import take_snapshot

            with self._lock:
                entry = self._runs.given(snapshot, group_id, self._clock())
                take_snapshot(entry.state, snapshot, self._clock())
                faults = self._runs.faults()
            if faults.any:
                self._on_fault(faults)
        except Exception:
            self._log_once.error("snapshot")
