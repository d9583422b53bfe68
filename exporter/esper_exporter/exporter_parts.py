"""The parts of an exporter, each connected to those left of it: state, rows, pages, ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from esper_exporter.agent.shared_page import SharedPage
from esper_exporter.contract.reader import prepare_reading
from esper_exporter.log_once import LogOnce
from esper_exporter.metrics.families.run_metrics import JOB_LABELS
from esper_exporter.metrics.live_page import LivePage, PublishErrors
from esper_exporter.metrics.publisher import RunPublisher
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.self_metrics import OwnMetrics
from esper_exporter.metrics.table import ValueTable
from esper_exporter.metrics.vital_rows import VitalRows
from esper_exporter.probes.samplers import Vitals
from esper_exporter.serve.negotiation import TEXT_0_0_4
from esper_exporter.serve.page.api import PageApi
from esper_exporter.serve.served_pages import ServedPages
from esper_exporter.settings import Settings
from esper_exporter.shutdown.persistence import Persistence
from esper_exporter.shutdown.run_keeper import RunKeeper
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker
from esper_exporter.state import counted
from esper_exporter.state.aggregator import Aggregator
from esper_exporter.state.counters import Counter
from esper_exporter.state.hub import HubLink
from esper_exporter.state.ingest import Ingest
from esper_exporter.state.registry import RunRegistry
from esper_exporter.state.self_counts import SelfCounts
from esper_exporter.state.state_lock import StateLock

if TYPE_CHECKING:
    from esper_exporter.journal.writer import JournalWriter
    from esper_exporter.probes.gpu.driver import Driver
    from esper_exporter.push.pusher import Pusher


class Parts:
    """Makes and owns the parts of one exporter. ``gpu_driver`` replaces NVML."""

    def __init__(
        self, settings: Settings, gpu_driver: Driver | None, clock: Callable[[], datetime]
    ) -> None:
        self.lock = StateLock(lambda: self.log_once.error("emit"))
        self.counts = SelfCounts()
        self.log_once = LogOnce(
            partial(self.count, counted.INTERNAL_ERRORS), lambda: self.lock.held_here
        )
        self.persistence = Persistence(
            settings.state_dir, settings.textfile_dir, partial(self.count, counted.STATE_PROBLEMS)
        )
        self.tracker = ScrapeTracker()
        self.hub = HubLink(lambda: self.log_once.error("hub"))
        self.journal = self._new_journal(settings)
        self._add_page(settings, gpu_driver, clock)
        self.share = self._new_share(settings, clock)
        self.pusher = self._new_pusher(settings, clock)
        self._add_ingest(clock)
        if self.journal is not None:
            self.vitals.on_gpu_fault = partial(self._journal_gpu_fault, clock)
        self.starting = threading.RLock()

    def _new_journal(self, settings: Settings) -> JournalWriter | None:
        if settings.journal is None:
            return None
        from esper_exporter.journal.writer import JournalWriter

        return JournalWriter(
            settings.journal,
            self.log_once.warn,
            max_bytes=settings.journal_max_bytes,
            max_age=settings.journal_max_age,
        )

    def _add_page(
        self, settings: Settings, gpu_driver: Driver | None, clock: Callable[[], datetime]
    ) -> None:
        blocks = compiled()
        table = ValueTable(blocks.blocks, max_series=settings.max_series)
        errors = PublishErrors(self.counts, self.log_once)
        self.own = OwnMetrics(
            self.counts, table, blocks, settings.max_series, lambda: clock().timestamp()
        )
        dropped = partial(self.counts.count, counted.SERIES_DROPPED)

        job = dict(
            zip(
                JOB_LABELS,
                (settings.job_id, settings.job_partition, settings.job_user),
                strict=True,
            )
        )

        def new_publisher(aggregator: Aggregator) -> RunPublisher:
            return RunPublisher(table, blocks, aggregator, dropped, errors, job)

        self.runs = RunRegistry(
            new_publisher,
            settings.run_id,
            settings.rank,
            self.persistence.store,
            settings.explosion_norm,
            self.tracker.seen_since,
        )
        self.vitals = Vitals(
            VitalRows(table, blocks), settings, gpu_driver, lambda: self.log_once.error("vitals")
        )
        self.page = LivePage(
            self.lock,
            table,
            self.own,
            self.runs,
            self.vitals,
            errors,
            self.hub,
            lambda: self.ingest.in_flight,
            lambda: None if self.journal is None else self.journal.active,
            lambda: (None, None) if self.pusher is None else self.pusher.state(),
            self.tracker.rendered_older,
        )

    def _new_share(self, settings: Settings, clock: Callable[[], datetime]) -> SharedPage | None:
        if settings.share is None or not settings.watch_process:
            return None
        return SharedPage(
            settings.share,
            settings.rank or 0,
            self.page.capture,
            lambda: clock().timestamp(),
            lambda: self.api.state("", None, "", "")[1] or b"",
            settings.run_id or "",
        )

    def _new_pusher(self, settings: Settings, clock: Callable[[], datetime]) -> Pusher | None:
        if settings.push is None:
            return None
        from esper_exporter.push.options import push_options
        from esper_exporter.push.pusher import Pusher

        return Pusher(
            push_options(settings, settings.push),
            lambda: self.pages.render(TEXT_0_0_4, False),
            lambda: clock().timestamp(),
            self.count,
            self.log_once.warn,
            lambda: self.log_once.error("push"),
            self.tracker.delivered,
        )

    def _add_ingest(self, clock: Callable[[], datetime]) -> None:
        self.keeper = RunKeeper(
            self.lock,
            self.runs,
            self.persistence,
            self.tracker,
            self.log_once,
            render_runs=self.page.renderer.render_runs,
            keep_later=lambda: self.ingest.keep_later(),
            share=self.share,
            journal=lambda: self.journal,
            hurry_push=None if self.pusher is None else self.pusher.hurry,
        )
        prepare_reading()
        self.ingest = Ingest(
            self.lock,
            self.runs,
            self.counts,
            self.log_once,
            clock,
            self.keeper.noticed,
            self.journal,
            self.keeper.share_batch,
        )
        self.api = PageApi(self.lock, self.runs, self.vitals)
        self.pages = ServedPages(
            self.lock,
            self.runs,
            self.counts,
            self.page.renderer,
            self.api,
            self.tracker,
            self.ingest.settle,
        )

    def start_pushing(self) -> None:
        """Push the page, where the settings say so."""
        if self.pusher is not None:
            self.pusher.start()

    def push_end(self, seconds: float) -> None:
        """Push the last page within so many seconds, where pages are pushed."""
        if self.pusher is not None:
            self.pusher.close(seconds)

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Count something, as soon as the state is free."""
        self.lock.submit(partial(self.counts.count, counter, *labels, by=by))

    def _journal_gpu_fault(
        self, clock: Callable[[], datetime], gpu: str, uuid: str, kind: str, count: int
    ) -> None:
        journal, now = self.journal, clock()
        for identity in self.runs.identities():
            if journal is not None:
                journal.record_gpu_fault(identity, gpu, uuid, kind, count, now)

    # -- forks -------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until no change is under way."""
        self.lock.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """No thread of the parent is here to release what it holds."""
        self.ingest.after_fork_in_child()
        self.lock.after_fork_in_child()
        self.page.renderer.after_fork_in_child()
        self.tracker.after_fork_in_child()
        self.starting = threading.RLock()
        self.persistence.after_fork_in_child()
        if self.pusher is not None:
            self.pusher.after_fork_in_child()
