"""Ingest: reads events and snapshots, and applies them to their runs.

Reading calls foreign code (attributes of events, time zones), so it happens before the state is
taken. What must not happen while it is held (log lines, files) happens after.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from time import time as unix_time
from typing import Protocol

from esper_exporter.contract.events import Event
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read, read_plainly
from esper_exporter.contract.rejection import REENTERED, Rejected
from esper_exporter.contract.simic import TrainingStartedPayload
from esper_exporter.contract.tolaria import TolariaBatchPayload
from esper_exporter.log_once import LogOnce
from esper_exporter.state import counted
from esper_exporter.state.registry import NO_FAULTS, Faults, NoRun, RunRegistry
from esper_exporter.state.run import MAX_ENVS, RunIdentity
from esper_exporter.state.self_counts import SelfCounts
from esper_exporter.state.snapshot_import import SnapshotImport, apply_snapshot, read_snapshot
from esper_exporter.state.state_lock import StateLock


def utc_now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)


MAX_NESTED = 16
"""Events that may be read one inside the other: an attribute of one emits the next."""

MAX_WAITING = 1024
"""Events that one event may emit while it is read."""

Change = Callable[[], None]
"""A change of the state that is ready to be made: it calls no foreign code."""


class Journal(Protocol):
    """Keeps the events that were accepted. It must not wait, and must not raise."""

    def record(self, event: Event, run: RunIdentity) -> None:
        """Keep one event, of this run."""


class _Reading(threading.local):
    """What a thread is reading: how deep, and the changes that wait for the outermost event."""

    def __init__(self) -> None:
        self.depth = 0
        self.changes: deque[list[Change | None]] = deque()


class Ingest:
    """Takes events and snapshots in, in the process that made it. Nothing here raises.

    Any thread may call it at any moment, also from a signal handler, a finaliser, a log handler
    or an attribute of an event that is being read: the inner event is then read at once and
    applied after the outer one. ``on_fault`` is called without the state after a latch was lit,
    ``on_batch`` after a batch has ended.
    """

    def __init__(
        self,
        lock: StateLock,
        runs: RunRegistry,
        counts: SelfCounts,
        log_once: LogOnce,
        clock: Callable[[], datetime],
        on_fault: Callable[[Faults], None],
        journal: Journal | None = None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = lock
        self._runs = runs
        self._counts = counts
        self._log_once = log_once
        self._clock = clock
        self._on_fault = on_fault
        self._journal = journal
        self._on_batch = on_batch
        self._batch_ended = False
        self._unix = None if clock is utc_now else lambda: clock().timestamp()
        self._forked = False
        self._reading = _Reading()
        self._in_flight: deque[None] = deque()
        self._faults = NO_FAULTS

    @property
    def in_flight(self) -> int:
        """Events that are being read or wait to be applied."""
        return len(self._in_flight)

    def take(self, event: object, begun: float | None = None) -> None:
        """Take in one event: a live esper event or its dict form.

        ``begun`` is when that began, by ``time.perf_counter()``, where it was before this call.
        """
        if begun is None:
            begun = perf_counter()
        if self._forked or self._reading.depth:
            self._take("emit", self._read_event, event, begun)
            return
        in_flight = self._in_flight
        in_flight.append(None)
        try:
            try:
                # Reading what is plain calls no foreign code, so nothing can be read inside it.
                read_event = read_plainly(event)
                if read_event is not None and not self._lock.do_now(self._bring, read_event, begun):
                    self._lock.submit(partial(self._bring, read_event, begun))
            finally:
                in_flight.pop()
            if read_event is None:
                self._take("emit", self._read_event, event, begun)
            elif (
                self._batch_ended
                or self._faults is not NO_FAULTS
                or self._log_once.lines
                or self._runs.unrestored
            ):
                self.settle()
        except Exception:
            self._log_once.error("emit")

    def take_line(self, line: bytes | str) -> None:
        """Take in one event as a line of JSON."""
        begun = perf_counter()
        try:
            event = parse_line(line)
        except Exception:
            self._take("emit", self._read_line, line, begun)
        else:
            self.take(event, begun)

    def take_snapshot(self, snapshot: object, group_id: str | None) -> None:
        """Take in an aggregated snapshot; ``group_id`` None: its own, or "default"."""
        self._take("snapshot", self._read_snapshot, snapshot, group_id)

    def _take(self, where: str, read_change: Callable[..., Change], *args: object) -> None:
        if self._forked:
            return
        reading = self._reading
        if reading.depth >= MAX_NESTED or len(reading.changes) >= MAX_WAITING:
            self._lock.submit(partial(self._counts.reject, REENTERED))
            return
        # The place is taken first: what this event emits while it is read comes after it.
        place: list[Change | None] = [None]
        reading.depth += 1  # first: a signal handler must not apply a place that is still empty
        reading.changes.append(place)
        self._in_flight.append(None)
        try:
            try:
                place[0] = read_change(*args)
            finally:
                reading.depth -= 1
                if not reading.depth:
                    self._apply(reading.changes)
                self._in_flight.pop()
            self.settle()
        except Exception:
            self._log_once.error(where)

    def _apply(self, changes: deque[list[Change | None]]) -> None:
        while changes:
            try:
                change = changes.popleft()[0]
            except IndexError:  # a signal handler emitted, and took them along
                return
            if change is not None:
                self._lock.submit(change)

    def keep_later(self) -> None:
        """Report a fault again as soon as the state is free: what is kept must be written."""
        self._faults = Faults(True, True)

    def settle(self) -> None:
        """Do what had to wait until the state was free: log lines, latches to read and write."""
        if self._batch_ended and not self._lock.held_here:
            self._batch_ended = False
            self._on_batch()
        if not (self._faults is not NO_FAULTS or self._log_once.lines or self._runs.unrestored):
            return
        if self._lock.held_here or self._reading.depth:
            return
        self._log_once.flush()
        for identity in self._runs.to_restore():
            self._lock.submit(partial(self._runs.restore, *identity))
        faults = self._faults
        if faults.any or faults.ended:
            self._faults = NO_FAULTS
            self._on_fault(faults)

    def after_fork_in_child(self) -> None:
        """A forked child has the parent's exporter in memory and is not it: take nothing more."""
        self._forked = True

    # -- reading: foreign code runs, the state is free -----------------------------------------

    def _read_line(self, line: bytes | str, begun: float) -> Change:
        try:
            return self._read_event(parse_line(line), begun)
        except Rejected as refused:
            return self._refused(refused, begun)

    def _refused(self, refused: Rejected, begun: float) -> Change:
        self._log_once.warn(f"event refused: {refused}")
        return partial(self._refuse, refused, begun)

    def _read_event(self, source: object, begun: float) -> Change:
        try:
            event = read(source, self._clock)
        except Rejected as refused:
            return self._refused(refused, begun)
        if event.ignored:
            self._log_once.warn(
                f"{event.name}: fields left out, wrong type: {', '.join(event.ignored)}"
            )
        return partial(self._bring, event, begun)

    def _read_snapshot(self, snapshot: object, group_id: str | None) -> Change:
        found = read_snapshot(snapshot, group_id)
        if found.ignored:
            self._log_once.warn(
                f"snapshot: fields left out, wrong type: {', '.join(found.ignored[:20])}"
            )
        return partial(self._bring_snapshot, found, self._clock())

    # -- changes: the state is held, no foreign code runs --------------------------------------

    def _bring(self, event: Event, begun: float) -> None:
        counts = self._counts
        arrived = unix_time()
        counts.last_event = arrived if self._unix is None else self._unix()
        try:
            if event.ignored:
                counts.count(counted.FIELDS_IGNORED, by=float(len(event.ignored)))
            duplicate = self._runs.take(event, arrived)
            if duplicate is not None:
                counts.count(counted.EVENTS_DUPLICATE, duplicate)
                return
            if self._journal is not None:
                self._journal.record(event, self._runs.newest())
            kind = type(event.data)
            if kind is TolariaBatchPayload:
                self._batch_ended = True
            elif kind is TrainingStartedPayload:
                self._count_dropped(event.data.n_envs - MAX_ENVS)
        except NoRun as refused:
            counts.reject(refused.reason)
        finally:
            if self._runs.news:
                self._note_faults()
            counts.emitted(perf_counter() - begun)

    def _refuse(self, refused: Rejected, begun: float) -> None:
        counts = self._counts
        try:
            counts.reject(refused.reason)
            if refused.event is not None:
                self._runs.salvage(refused.event)
                if self._journal is not None:
                    self._journal.record(refused.event, self._runs.identity_of(refused.event))
        except NoRun:
            return
        finally:
            if self._runs.news:
                self._note_faults()
            counts.emitted(perf_counter() - begun)

    def _bring_snapshot(self, found: SnapshotImport, now: datetime) -> None:
        counts = self._counts
        if found.ignored:
            counts.count(counted.FIELDS_IGNORED, by=float(len(found.ignored)))
        self._count_dropped(found.environments_dropped)
        try:
            entry = self._runs.given(found, now)
        except NoRun as refused:
            counts.reject(refused.reason)
            return
        apply_snapshot(entry.state, found.snapshot, now)
        self._runs.follow_snapshot(entry, now)
        self._note_faults()

    def _count_dropped(self, environments: int) -> None:
        if environments > 0:
            self._counts.count(counted.ENVIRONMENTS_DROPPED, by=float(environments))

    def _note_faults(self) -> None:
        faults = self._runs.faults()
        if faults is NO_FAULTS:
            return
        before = self._faults
        self._faults = Faults(
            faults.any or before.any, faults.new or before.new, faults.ended or before.ended
        )
