"""Exporter: takes a run's events in, keeps its page, and serves it."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from esper_exporter.agent.shared_page import SharedPage
from esper_exporter.log_once import LogOnce
from esper_exporter.metrics.exposition import Capture, capture
from esper_exporter.metrics.renderer import OWN_COLLECTOR, Renderer
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.self_metrics import OwnMetrics
from esper_exporter.metrics.table import ValueTable
from esper_exporter.probes.samplers import Vitals
from esper_exporter.serve.interfaces import LandingPage, Served, Visit
from esper_exporter.serve.messages import Route
from esper_exporter.serve.negotiation import MediaType, negotiate
from esper_exporter.serve.page.api import PageApi
from esper_exporter.serve.page.landing_state import landing_page
from esper_exporter.serve.page.site import page_routes
from esper_exporter.serve.registration import Registration
from esper_exporter.serve.server import MetricsServer
from esper_exporter.settings import Settings, read_settings
from esper_exporter.shutdown.ending import Ending
from esper_exporter.shutdown.failure_reason import Reason
from esper_exporter.shutdown.hub import HubLink
from esper_exporter.shutdown.persistence import Persistence, State
from esper_exporter.shutdown.process import unwatch, watch
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker
from esper_exporter.state import counted
from esper_exporter.state.counters import Counter
from esper_exporter.state.ingest import Ingest
from esper_exporter.state.rank_steps import RankSteps
from esper_exporter.state.registry import Faults, RunRegistry
from esper_exporter.state.state_lock import WAIT_SECONDS, StateLock

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from esper_exporter.journal.writer import JournalWriter
    from esper_exporter.metrics.user_collectors import Result
    from esper_exporter.probes.gpu.driver import Driver

COLLECTOR_SECONDS = 0.5
KEEP_WAIT_SECONDS = 5.0
LANDING_WAIT_SECONDS = 0.02
OWN_ARGUMENTS = ("self", "clock", "gpu_driver")


def _journal_writer(settings: Settings, log_once: LogOnce) -> JournalWriter | None:
    if settings.journal is None:
        return None
    from esper_exporter.journal.writer import JournalWriter

    return JournalWriter(
        settings.journal,
        log_once.warn,
        max_bytes=settings.journal_max_bytes,
        max_age=settings.journal_max_age,
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Exporter:
    """An in-process Prometheus exporter for one training process.

    It is a backend for esper's hub (``start``, ``emit``, ``close``), a context manager, and can be
    fed by hand: ``emit`` takes live events or dicts, ``emit_line`` JSON lines as the real system
    writes them, ``observe_snapshot`` an aggregated snapshot. Nothing it does raises into the
    training once it is made; bad settings raise when it is made.

    All settings are keyword arguments and environment variables (``ESPER_EXPORTER_PORT`` …), see
    `esper_exporter.settings.Settings`. ``host`` is the address served on (the loopback unless
    said otherwise), ``port`` 0 takes a free one, ``run_id`` names the run (else the event's id
    and start time), ``web_config`` is a Prometheus web configuration file, ``allowed_hosts`` are
    further names that requests may give as their ``Host`` (see `esper_exporter.serve.hosts`).

    For the end: ``state_dir`` is where latches and the last page are kept (the user's state
    directory unless said otherwise, "off" for nowhere), ``textfile_dir`` the directory of a
    node_exporter's textfile collector for the last page, ``linger`` the seconds to stay at most
    for the end to be scraped (0: not at all), ``term_linger`` the same after a SIGTERM;
    ``watch_process`` False: how this process ends says nothing of the run. ``file_sd`` is a
    directory for a target file of Prometheus' file_sd. ``clock`` tells the time, for tests.

    For the machine: ``gpu_vitals`` and ``host_vitals`` are "auto" (the first process of a machine
    tells of it), "on" or "off", sampled every ``vitals_interval`` seconds from `start` to `close`;
    ``gpu_slow_interval`` are the seconds between two readings of what is slow to read, 0: never.
    ``telemetry_dir`` and ``checkpoint_dir`` are directories whose free space is told.
    ``explosion_norm`` is the gradient norm above which an update counts as exploding, for trainers
    that do not report what they clip to. ``journal`` is a directory in which every accepted event
    is kept, for SQL and `explain`; ``journal_max_bytes`` and ``journal_max_age`` (seconds) limit
    it. ``gpu_driver`` stands in for the GPUs' driver.

    Thread-safe.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        host: str | None = None,
        run_id: str | None = None,
        web_config: str | os.PathLike[str] | None = None,
        unix_socket: str | os.PathLike[str] | None = None,
        allowed_hosts: str | Iterable[str] | None = None,
        strict: bool | None = None,
        max_series: int | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        textfile_dir: str | os.PathLike[str] | None = None,
        file_sd: str | os.PathLike[str] | None = None,
        share: str | os.PathLike[str] | None = None,
        linger: float | None = None,
        term_linger: float | None = None,
        watch_process: bool | None = None,
        rank: int | None = None,
        explosion_norm: float | None = None,
        gpu_vitals: str | None = None,
        host_vitals: str | None = None,
        vitals_interval: float | None = None,
        gpu_slow_interval: float | None = None,
        telemetry_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        journal: str | os.PathLike[str] | None = None,
        journal_max_bytes: int | None = None,
        journal_max_age: float | None = None,
        gpu_driver: Driver | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in OWN_ARGUMENTS}
        settings = self.settings = read_settings(given)
        self._clock = clock
        self._pid = os.getpid()
        self._lock = StateLock(lambda: self._log_once.error("emit"))
        self._starting = threading.RLock()
        blocks = compiled()
        self._table = ValueTable(blocks.blocks, max_series=settings.max_series)
        self._own = OwnMetrics(self._table, blocks, settings.max_series, clock().timestamp())
        self._log_once = LogOnce(
            partial(self._count, counted.INTERNAL_ERRORS), lambda: self._lock.held_here
        )
        self._persistence = Persistence(
            settings.state_dir, settings.textfile_dir, partial(self._count, counted.STATE_PROBLEMS)
        )
        self._tracker = ScrapeTracker()
        self._hub = HubLink(lambda: self._log_once.error("hub"))
        self._runs = RunRegistry(
            self._table,
            blocks,
            lambda: self._own.count(counted.SERIES_DROPPED),
            settings.run_id,
            settings.rank,
            self._persistence.store,
            self._publish_error,
            settings.explosion_norm,
            self._tracker.seen_since,
        )
        self._vitals = Vitals(
            self._table, blocks, settings, gpu_driver, lambda: self._log_once.error("vitals")
        )
        self._renderer = Renderer(
            self._capture, lambda: self._vitals.tells_process, lambda: self._lock.held_here
        )
        self._captured = capture(self._table, None)
        self._landing = landing_page(())
        self._publish_failed = False
        self._ending = Ending(
            self,
            self._tracker,
            linger=settings.linger,
            term_linger=settings.term_linger,
            is_run=settings.watch_process,
        )
        self._registration = Registration(settings.file_sd, settings.host, self)
        self.leave = self._registration.end
        self.journal = _journal_writer(settings, self._log_once)
        if self.journal is not None:
            self._vitals.on_gpu_fault = self._journal_gpu_fault
        self._ingest = Ingest(
            self._lock, self._runs, self._own, self._log_once, clock, self._noticed, self.journal
        )
        self.page = PageApi(self._lock, self._runs, self._vitals)
        self._server: MetricsServer | None = None
        self._closers: list[Callable[[], None]] = []
        self._share: SharedPage | None = None
        self._batches_shared = 0
        if settings.share is not None and settings.watch_process:
            self._share = SharedPage(
                settings.share,
                settings.rank or 0,
                self._capture,
                lambda: self._clock().timestamp(),
            )
        _EXPORTERS.add(self)

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve the page, in a thread of its own. Harmless when it is served already.

        A taken port is a warning and retried in the background, unless ``strict``.
        """
        settings = self.settings
        self._hub.use_caller()
        if self._share is not None:
            self._share.start()
        with self._starting:
            if self._server is None and (settings.port is not None or settings.unix_socket):
                self._server = MetricsServer(
                    self,
                    host=settings.host,
                    port=settings.port,
                    unix_socket=settings.unix_socket,
                    allowed_hosts=settings.allowed_hosts or (),
                    web_config=settings.web_config,
                    strict=settings.strict,
                    on_error=lambda _where: self._log_once.error("server"),
                )
            server = self._server
        if server is not None:
            server.start()
        with self._starting:
            if self._server is server:
                self._vitals.start(of_process_only=self._agent_serves())
        self._lock.submit(self._runs.go_on)
        self._registration.start()
        if self.settings.watch_process:
            watch(self._ending)

    def use_hub(self, hub: object) -> None:
        """Name the telemetry hub that delivers this exporter's events, if ``add_backend`` of that
        hub did not start it: its queue is emptied before an end is judged, and its own counters
        are on the page. ``hub`` has ``flush(timeout)`` and ``get_health_snapshot()``. Raises
        TypeError for what is no hub.
        """
        self._hub.use(hub)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the exporter is closed, before the runs have finished."""
        self._closers.append(callback)

    def close(self) -> None:
        """Stop serving; the page can still be rendered. Harmless when not started.

        The runs have finished then, or failed if an exception is on its way. If that, or a latch,
        has not been fetched by every scraper yet, the server stays until it has, at most ``linger``
        seconds.
        """
        self._close(sys.exc_info()[1])

    def _close(self, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            return
        # First: what waits for its event is then known not to come.
        self.flush_hub()
        while self._closers:
            try:
                self._closers.pop()()
            except Exception:
                self._log_once.error("closing")
        with self._starting:
            server = self._server
        try:
            self._ending.closing(error)
        finally:
            # Last, so that whatever comes in while it stays up is still noticed.
            with self._starting:
                if self._server is server:
                    self._server = None
                    self._vitals.stop()
            unwatch(self._ending)
            self.leave()
            if self._share is not None:
                self._share.close()
            self._vitals.stop()
            if self.journal is not None:
                self.journal.close()
            if server is not None:
                server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._close(error)

    @property
    def port(self) -> int | None:
        """The TCP port that is served, None while none is."""
        return self._server.port if self._server is not None else None

    @property
    def url(self) -> str | None:
        """Address of the landing page without a trailing slash, None while it is not served."""
        return self._server.url if self._server is not None else None

    # -- how it ends -------------------------------------------------------------------------

    def flush_hub(self) -> None:
        """Wait, 2 seconds at most, until the hub has delivered the events that it holds."""
        self._hub.flush()

    def mark_ended(self, reason: Reason | None, error: BaseException | None = None) -> bool:
        """The current runs have finished (None) or failed; whether that is news. Never raises.

        ``error`` is what they failed of, where that is known.
        """
        news: list[bool] = []
        try:
            now = self._clock()
            self._lock.submit(lambda: news.append(self._runs.end(reason, now)))
            if self.journal is not None and (news[:1] or [True])[0]:
                detail = f"{type(error).__name__}: {error}" if error is not None else ""
                word = "finished" if reason is None else reason.value
                for identity in self._runs.identities():
                    self.journal.record_ending(identity, word, detail, now)
        except Exception:
            self._log_once.error("ending")
            return False
        # A signal handler may ask for it amid a change: then it is done after that.
        return news[0] if news else True

    def _journal_gpu_fault(self, gpu: str, uuid: str, kind: str, count: int) -> None:
        journal, now = self.journal, self._clock()
        for identity in self._runs.identities():
            if journal is not None:
                journal.record_gpu_fault(identity, gpu, uuid, kind, count, now)

    def last_end(self) -> float | None:
        """When the newest end of a run came onto the page, by ``time.monotonic()``."""
        return self._runs.last_end

    def events_taken(self) -> int:
        """Events taken in so far, good or bad."""
        return self._own.events

    def _agent_serves(self) -> bool:
        """Whether a node agent serves the page, and goes on when this process is gone."""
        return self._share is not None and self._share.agent_serves()

    def serving(self) -> bool:
        """Whether the end of this process ends the page: an agent serves it longer."""
        if self._agent_serves():
            return False
        return self._server is not None and self._server.listening

    def keep(self) -> None:
        """Write what must outlive the process: the latches, and the page as it is now."""
        if self._lock.held_here:
            self._ingest.keep_later()
            return
        if self._share is not None:
            self._share.publish()
        try:
            self._persistence.save(self._to_keep, self._renderer.render_runs)
        except Exception:
            self._log_once.error("final_page")

    def _to_keep(self) -> State:
        return self._lock.read(self._to_keep_now, lambda: ([], None), KEEP_WAIT_SECONDS)

    def _to_keep_now(self) -> State:
        runs = [entry.state.identity for entry in self._runs.current.values()]
        return self._runs.records(), runs[0] if runs else None

    # -- what comes in ---------------------------------------------------------------------

    def emit(self, event: object) -> None:
        """Take in one event: a live esper event or its dict form. Never raises."""
        self._ingest.take(event)
        if self._share is not None:
            self._share_batch(self._share)

    def emit_line(self, line: bytes | str) -> None:
        """Take in one JSON line of the real system's telemetry file. Never raises."""
        self._ingest.take_line(line)
        if self._share is not None:
            self._share_batch(self._share)

    def _share_batch(self, share: SharedPage) -> None:
        """Share what a batch has brought as soon as it ends, without waiting for it here."""
        run = self._runs.newest_state()
        if run is not None and run.batches_completed != self._batches_shared:
            self._batches_shared = run.batches_completed
            share.soon()

    def report_nonfinite(
        self, source: str, head: str | None = None, kind: str = "nan", *, group_id: str = "default"
    ) -> None:
        """Light a latch now, from any thread; it is on disk when this returns. Never raises.

        For a training loop whose events pass a hub: what the hub still queues is lost when the
        process is killed. ``source`` is one of `esper_exporter.state.latches.NONFINITE_SOURCES`
        (anything else counts as ``other``), ``head`` the action head, if it is one head's,
        ``kind`` is "nan" or "inf". The update's own event counts the same latch once.
        """
        where = f"{source}[{head}]" if head else source
        self.emit(
            {
                "event_type": "NUMERICAL_INSTABILITY_DETECTED",
                "timestamp": self._clock(),
                "group_id": group_id,
                "data": {
                    "anomaly_type": "nonfinite_detected",
                    "episode": 0,
                    "batch": 0,
                    "inner_epoch": 0,
                    "total_episodes": 0,
                    "detail": f"Sources: {where}: {'Inf' if kind == 'inf' else 'NaN'}",
                },
            }
        )

    def observe_snapshot(self, snapshot: object, *, group_id: str | None = None) -> None:
        """Take in an aggregated SanctumSnapshot (an object or its dict form). Never raises.

        For those who hold an aggregator of their own instead of events. ``group_id`` is the A/B
        group it belongs to, "default" unless said otherwise.
        """
        self._ingest.take_snapshot(snapshot, group_id)

    def forget_runs(self) -> None:
        """Take every run off the page; for a recording that is played again. Never raises."""
        self._lock.submit(self._runs.forget)

    def report_rank_step(self, step: int, seconds: float | None = None) -> None:
        """Report that this rank has done its own part of a step, before it waits for other ranks.

        ``step`` is the step's index, ``seconds`` how long its own part took. It belongs to the run
        that an event came for last; before the first event it is ignored. Never raises.
        """
        now = self._clock().timestamp()

        def report() -> None:
            run = self._runs.newest_state()
            if run is not None:
                run.rank_steps = run.rank_steps or RankSteps()
                run.rank_steps.report(step, seconds, now)

        self._lock.submit(report)

    def check_ranks(
        self, step: int, *, loss: float | None = None, gradient_norm: float | None = None
    ) -> None:
        """Report values of a step that are the same on every rank unless one computes wrongly.

        Give what the loop has after the all-reduce, as numbers on the host. Never raises.
        """

        def check() -> None:
            run = self._runs.newest_state()
            if run is not None and run.rank_steps is not None:
                run.rank_steps.check(step, loss, gradient_norm)

        self._lock.submit(check)

    def probe_failed(self) -> None:
        """Count an error that a probe caught in itself and is handling now. Never raises."""
        self._log_once.error("probe")

    def now(self) -> datetime:
        """The time by the exporter's clock."""
        return self._clock()

    def probe_disagreed(self, field: str) -> None:
        """Count a field for which the trainer and the probe reported different values."""
        self._count(counted.PROBE_DISAGREEMENTS, field)

    def probe_seam(self, seam: str, present: bool) -> None:
        """Record whether a seam of the trainer is measured."""
        self._lock.submit(partial(self._own.seam, seam, present))

    def _noticed(self, faults: Faults) -> None:
        """A latch was lit. The first time it is on disk before the training goes on: what comes
        next may be the end. Later only the count changes, which need not be written each time."""
        if faults.any:
            self._tracker.serious()
            if self.journal is not None:
                self.journal.hurry()
        if faults.new or faults.ended or self._persistence.due:
            self.keep()
        elif self._share is not None:
            self._share.publish()

    # -- what goes out ---------------------------------------------------------------------

    def _capture(self, collected: Sequence[Result] = ()) -> Capture:
        """One consistent state of everything.

        Where a thread keeps the state to itself, or asks for a page amid its own change, it is
        the state that was captured last.
        """
        health = None if self._lock.held_here else self._hub.health()
        if health is not None:
            self._lock.submit(partial(self._own.hub, health), wait=0.0)
        return self._lock.read(
            partial(self._capture_now, collected), lambda: self._captured, WAIT_SECONDS
        )

    def _capture_now(self, collected: Sequence[Result]) -> Capture:
        begun = time.perf_counter()
        self._publish_failed = False
        try:
            self._runs.refresh()
        except Exception:
            self._publish_error("publish")
        try:
            self._vitals.refresh(entry.state for entry in self._runs.everything())
        except Exception:
            self._publish_error("vitals")
        for result in collected:
            self._own.collected(result.name, result.success, result.seconds)
        self._own.collected(OWN_COLLECTOR, not self._publish_failed, time.perf_counter() - begun)
        self._own.series = self._renderer.series
        try:
            if self.journal is not None:
                self._own.journal_active = self.journal.active
            self._own.refresh(len(self._runs.everything()), self._ingest.in_flight)
        except Exception:
            self._publish_error("publish")
        self._captured = capture(self._table, self._captured)
        return self._captured

    def _publish_error(self, where: str) -> None:
        self._publish_failed = True
        self._own.count(counted.INTERNAL_ERRORS, where)
        self._log_once.log_error(where)

    def _count(self, counter: Counter, label: str) -> None:
        self._lock.submit(partial(self._own.count, counter, label))

    def render(self, accept: str | MediaType | None = None, gzip: bool = False) -> bytes:
        """The whole page as UTF-8 bytes, in the format that an ``Accept`` header asks for.

        Without one it is the Prometheus text format. With ``gzip`` the bytes are compressed.
        """
        media = accept if isinstance(accept, MediaType) else negotiate(accept)
        page = self._renderer.render(media.format, gzip)
        self._ingest.settle()
        return page

    def add_collector(
        self, collector: Collector, name: str | None = None, *, seconds: float = COLLECTOR_SECONDS
    ) -> None:
        """Put a prometheus_client collector's families on the page too.

        Each runs on a thread of its own and has a boundary of its own: when it raises, is not back
        within ``seconds``, or has a family that is on the page already, only that is left out, and
        ``esper_exporter_collector_success{collector}`` says so. ``name`` is that label (its class'
        name unless said otherwise).

        Raises ValueError for a name that is taken, or for what is no collector.
        """
        self._renderer.add(collector, name or type(collector).__name__, seconds)

    def collector(self) -> Collector:
        """The page as a collector for a prometheus_client registry of one's own."""
        from esper_exporter.metrics.collector import TableCollector

        # A registry has the process' own metrics already, or wants none of them.
        metrics = tuple(m for m in compiled().catalogue.metrics if m.name.startswith("esper_"))
        return TableCollector(self._capture, metrics)

    def visited(self, visit: Visit) -> None:
        """Note that a client asked for a page (called by the server)."""
        self._tracker.visited(visit)

    def served(self, page: Served) -> None:
        """Note a page that a client got (called by the server)."""
        self._tracker.served(page)
        if not page.complete:
            return

        def count() -> None:
            self._own.count(counted.SCRAPES)
            self._own.observe(counted.SCRAPE_DURATION, page.seconds)

        self._lock.submit(count, wait=0.0)

    def ready(self) -> bool:
        """Whether there is a run to show. Waits for nobody."""
        return any(entry.state.began for entry in list(self._runs.current.values()))

    def landing(self) -> LandingPage:
        """What the landing page shows; what it showed last where another thread is busy."""

        def now() -> LandingPage:
            self._landing = landing_page(self._runs.everything())
            return self._landing

        return self._lock.read(now, lambda: self._landing, LANDING_WAIT_SECONDS)

    def part(self, _query: str) -> None:
        """The page of one process has no parts (called by the server)."""

    def page_routes(self) -> Mapping[str, Route]:
        """The addresses of the browser page (called by the server)."""
        return page_routes(self.page)

    def snapshot(self, group_id: str = "default") -> Any:
        """The live SanctumSnapshot of a group's current run, or None. Read it, do not keep it."""

        def refreshed() -> Any:
            entry = self._runs.current.get(group_id)
            if entry is None:
                return None
            entry.aggregator.refresh()
            return entry.state.snapshot

        def as_it_is() -> Any:
            entry = self._runs.current.get(group_id)
            return None if entry is None else entry.state.snapshot

        return self._lock.read(refreshed, as_it_is, WAIT_SECONDS)

    # -- forks -------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._lock.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._lock.after_fork_in_parent()

    def _after_fork_in_child(self) -> None:
        """No thread of the parent is here to release what it holds."""
        self._lock.after_fork_in_child()
        self._renderer.after_fork_in_child()
        self._tracker.after_fork_in_child()
        self._starting = threading.RLock()
        self._persistence.after_fork_in_child()


_EXPORTERS: weakref.WeakSet[Exporter] = weakref.WeakSet()


def _before_fork() -> None:
    for exporter in list(_EXPORTERS):
        exporter._before_fork()


def _after_fork_in_parent() -> None:
    for exporter in list(_EXPORTERS):
        exporter._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for exporter in list(_EXPORTERS):
        exporter._after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
