"""All runs of one process: which event belongs to which run, and when a run gives way to the next.

Also where an event that reported nothing new is left out: delivered twice, or under both its names.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from esper_exporter import health
from esper_exporter.contract.deduplication import DualEmitFilter, EventIdFilter
from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.events import Event
from esper_exporter.contract.simic import TrainingStartedPayload
from esper_exporter.state import run_end
from esper_exporter.state.aggregator import Aggregator
from esper_exporter.state.failure_reason import Reason
from esper_exporter.state.history import RunHistory
from esper_exporter.state.latches import Latches
from esper_exporter.state.rank_steps import RankSteps
from esper_exporter.state.run import RunIdentity, RunState
from esper_exporter.state.snapshot_import import SnapshotImport

DEFAULT_GROUP = "default"
MAX_GROUPS = 64
MAX_RETIRED = 4


class NoRun(Exception):
    """An event that belongs to no run: its group is unknown and nothing runs, or there are
    too many groups. ``reason`` is a label value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Faults(NamedTuple):
    """What must outlive the process: whether a latch was lit, and one for the first time."""

    any: bool
    new: bool
    ended: bool = False
    """Whether a run ended while its process continues."""


NO_FAULTS = Faults(False, False)


class Publisher(Protocol):
    """Writes the state of one run to where it is shown."""

    def refresh(self) -> None:
        """Write what changed since the last time."""

    def remove(self) -> None:
        """Show the run no more."""


@dataclass(frozen=True, slots=True)
class LatchRecord:
    """A run's latches, ready to be written."""

    name: str
    text: bytes


class LatchKeeper(Protocol):
    """Keeps the latches of runs beyond the end of their process."""

    def record(self, identity: RunIdentity, latches: Latches) -> LatchRecord:
        """What there is to write of a run."""

    def load(self, identity: RunIdentity, latches: Latches) -> bool:
        """Light the latches that were kept of a run; whether there were any."""


@dataclass(slots=True)
class Entry:
    """One run on the page."""

    aggregator: Aggregator
    publisher: Publisher
    dual_emit: DualEmitFilter = field(default_factory=DualEmitFilter)
    history: RunHistory = field(default_factory=RunHistory)
    lightings_seen: int = 0
    lit_seen: int = 0
    retired_at: float | None = None

    @property
    def state(self) -> RunState:
        return self.aggregator.state


class RunRegistry:
    """The current run of each group, and those that were superseded and not yet seen by a scrape.

    Not thread-safe: its owner calls it under one lock.
    """

    def __init__(
        self,
        new_publisher: Callable[[Aggregator], Publisher],
        run_id: str | None,
        rank: int | None,
        store: LatchKeeper | None = None,
        explosion_norm: float = health.GRAD_NORM_CRITICAL,
        seen_since: Callable[[float], bool] = lambda _moment: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new_publisher = new_publisher
        self._run_id = run_id
        self._rank = rank
        self._explosion_norm = explosion_norm
        self._store = store
        self._seen_since = seen_since
        self._monotonic = monotonic
        self.current: dict[str, Entry] = {}
        self.retired: list[Entry] = []
        self._newest: str | None = None
        self.last_end: float | None = None
        """When the newest end of a run came onto the page (``time.monotonic()``)."""
        self._end_is_news = False
        self.news = False
        """Whether `faults` may have something to report."""
        self._event_ids = EventIdFilter()
        self._identities: set[tuple[str, str]] = set()
        self.unrestored: deque[Entry] = deque()

    def everything(self) -> list[Entry]:
        """All runs on the page, superseded ones first."""
        return [*self.retired, *self.current.values()]

    def take(self, event: Event, arrived: float) -> str | None:
        """Bring an event to its run. Returns why it was left out as a duplicate, else None.

        ``arrived`` is when it came in, by this machine's clock, in Unix seconds.
        """
        if event.event_id is not None and self._event_ids.seen(event.event_id):
            return "repeated"
        row = TYPES[event.type]
        if row.begins_run and isinstance(event.data, TrainingStartedPayload):
            entry = self._begin(event, event.data)
        else:
            entry = self.current.get(event.group_id) or self._entry(event)
        if row.aliases and entry.dual_emit.is_duplicate(event):
            return "dual_emit"
        aggregator = entry.aggregator
        state = aggregator.state
        self._newest = state.identity.group_id
        aggregator.apply(event)
        entry.history.see(event, state, arrived)
        if state.latches.lightings != entry.lightings_seen:
            self.news = True
        if row.resumes_run:
            self._want_restored(entry)
        if (state.ended_by is not None or event.type == run_end.BATCH) and run_end.follow_event(
            state, event.type, event.timestamp
        ):
            self._ended()
        return None

    def newest(self) -> RunIdentity:
        """The run that had the last event. There must have been one."""
        assert self._newest is not None
        return self.current[self._newest].state.identity

    def report_rank_step(self, step: int, seconds: float | None, now: float) -> None:
        """The rank has done its own part of a step of the run that had the last event."""
        run = self.newest_state()
        if run is not None:
            run.rank_steps = run.rank_steps or RankSteps()
            run.rank_steps.report(step, seconds, now)

    def check_ranks(self, step: int, loss: float | None, gradient_norm: float | None) -> None:
        """Values of a step that are the same on every rank unless one computes wrongly."""
        run = self.newest_state()
        if run is not None and run.rank_steps is not None:
            run.rank_steps.check(step, loss, gradient_norm)

    def identities(self) -> list[RunIdentity]:
        """The current runs."""
        return [entry.state.identity for entry in tuple(self.current.values())]

    def identity_of(self, event: Event) -> RunIdentity:
        """The run that an event belongs to. Raises NoRun."""
        return self._entry(event).state.identity

    def follow_snapshot(self, entry: Entry, now: datetime) -> None:
        """Note what a snapshot that was taken over says of its run's end."""
        self.news = True
        if run_end.follow_snapshot(entry.state, now):
            self._ended()

    def _ended(self) -> None:
        self.last_end = self._monotonic()
        self._end_is_news = self.news = True

    def forget(self) -> None:
        """Take every run off the page: a recording is played again from its beginning."""
        for entry in self.everything():
            entry.publisher.remove()
        self.current.clear()
        self.retired.clear()
        self._newest = None
        self._event_ids = EventIdFilter()
        self._identities.clear()
        self.unrestored.clear()

    def newest_state(self) -> RunState | None:
        """The current run that an event came for last, None before the first."""
        entry = self.current.get(self._newest) if self._newest is not None else None
        return None if entry is None else entry.state

    def faults(self) -> Faults:
        """Whether a latch was lit, for the first time or again, since this was asked last."""
        again = new = self.news = False
        for entry in self.current.values():
            latches = entry.state.latches
            if latches.lightings != entry.lightings_seen:
                entry.lightings_seen = latches.lightings
                again = True
                lit = latches.lit()
                new = new or lit > entry.lit_seen
                entry.lit_seen = lit
        if not again and not self._end_is_news:
            return NO_FAULTS
        ended, self._end_is_news = self._end_is_news, False
        return Faults(again, new, ended)

    def records(self) -> list[LatchRecord]:
        """What there is to keep on disk of the current runs' latches."""
        if self._store is None:
            return []
        return [
            self._store.record(entry.state.identity, entry.state.latches)
            for entry in self.current.values()
            if entry.lit_seen
        ]

    def end(self, reason: Reason | None, now: datetime) -> bool:
        """End the active runs as finished, or failed for a reason; whether any was active."""
        news = [
            run_end.end_with_process(entry.state, reason, now) for entry in self.current.values()
        ]
        if any(news):
            self.last_end = self._monotonic()
        return any(news)

    def end_recordings(self) -> None:
        """The runs are recordings that have no more events."""
        for entry in self.current.values():
            run_end.end_recording(entry.state)

    def go_on(self) -> None:
        """Reopen the runs that seemed finished: the exporter was started again."""
        for entry in self.current.values():
            run_end.restart(entry.state)

    def _want_restored(self, entry: Entry) -> None:
        if self._store is not None and not entry.state.latches.lit():
            self.unrestored.append(entry)

    def to_restore(self) -> list[tuple[Entry, Latches]]:
        """Load what earlier processes kept of the runs that continue here. Reads files: call it
        without the state, and the result given to `restore`."""
        found: list[tuple[Entry, Latches]] = []
        while self.unrestored and self._store is not None:
            try:
                entry = self.unrestored.popleft()
            except IndexError:  # another thread was faster
                break
            kept = Latches()
            self._store.load(entry.state.identity, kept)
            found.append((entry, kept))
        return found

    def restore(self, entry: Entry, kept: Latches) -> None:
        """Add the latches that earlier processes saw to those of a run."""
        entry.state.latches.add(kept)
        entry.lit_seen = entry.state.latches.lit()

    def salvage(self, event: Event) -> None:
        """Keep the latches of a policy update that could not be read."""
        self.news = True
        self._entry(event).aggregator.salvage(event)

    def given(self, found: SnapshotImport, now: datetime) -> Entry:
        """The run that a snapshot from elsewhere belongs to, by its own id and group.

        Raises NoRun where there are too many groups.
        """
        group, identity = found.group_id or DEFAULT_GROUP, (found.run_id, found.started_at)
        known = self.current.get(group)
        if known is not None and known.state.given_id == identity:
            return known
        if known is None and len(self.current) >= MAX_GROUPS:
            raise NoRun("too_many_groups")
        if known is not None:
            self._retire(self.current.pop(group))
        name = self._free_name(found.run_id or "run", group, found.started_at or now)
        entry = self._add(RunIdentity(name, group, self._rank or 0))
        entry.state.given_id = identity
        return entry

    def _entry(self, event: Event) -> Entry:
        group = event.group_id
        found = self.current.get(group)
        if found is not None:
            return found
        if TYPES[event.type].group_unreliable and group == DEFAULT_GROUP:
            # Emitted with the wrong group: it belongs to the group of the newest event.
            if self._newest is None:
                raise NoRun("no_run")
            return self.current[self._newest]
        if len(self.current) >= MAX_GROUPS:
            raise NoRun("too_many_groups")
        return self._add(RunIdentity(self._name(event, ""), group, self._rank or 0))

    def _begin(self, event: Event, payload: TrainingStartedPayload) -> Entry:
        """A new run begins; the group's run before it is over."""
        group = event.group_id
        before = self.current.pop(group, None)
        if before is None and len(self.current) >= MAX_GROUPS:
            raise NoRun("too_many_groups")
        rank = self._rank if self._rank is not None else payload.rank or 0
        for other in self.current.values():
            if run_end.give_way(other.state, event.timestamp):
                self._ended()
        if before is not None:
            self._retire(before)
            if self._run_id is not None and payload.resume_path:
                entry = self._add(RunIdentity(before.state.identity.run_id, group, rank))
                entry.state.latches = before.state.latches
                if entry in self.unrestored:
                    self.unrestored.remove(entry)
                before.publisher.remove()
                self.retired.remove(before)
                return entry
        return self._add(RunIdentity(self._name(event, payload.episode_id or ""), group, rank))

    def _name(self, event: Event, given_id: str) -> str:
        """A run id that no other run of this process has: the user's, or the event's and the time,
        since the real system gives the same id to a rerun and to a second group."""
        return self._free_name(given_id, event.group_id, event.timestamp)

    def _free_name(self, given_id: str, group: str, begun: datetime) -> str:
        stem = self._run_id or f"{given_id or 'run'}-{begun:%Y%m%dT%H%M%SZ}"
        name, number = stem, 1
        while (name, group) in self._identities:
            number += 1
            name = f"{stem}-{number}"
        self._identities.add((name, group))
        return name

    def _add(self, identity: RunIdentity) -> Entry:
        state = RunState(identity)
        state.explosion_norm = self._explosion_norm
        aggregator = Aggregator(state)
        publisher = self._new_publisher(aggregator)
        entry = self.current[identity.group_id] = Entry(aggregator, publisher)
        if self._run_id is not None:
            self._want_restored(entry)
        return entry

    def _retire(self, entry: Entry) -> None:
        """Keep a superseded run on the page until every scraper has seen its end."""
        entry.state.active = False
        entry.publisher.refresh()
        entry.retired_at = self._monotonic()
        self.retired.append(entry)
        while len(self.retired) > MAX_RETIRED:
            self.retired.pop(0).publisher.remove()

    def refresh(self) -> None:
        """Write all rows, and take superseded runs off that have been seen."""
        for entry in list(self.retired):
            if entry.retired_at is not None and self._seen_since(entry.retired_at):
                entry.publisher.remove()
                self.retired.remove(entry)
        for entry in self.current.values():
            entry.publisher.refresh()
