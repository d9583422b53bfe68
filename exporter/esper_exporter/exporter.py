"""Exporter: starts, feeds and closes what reads events, keeps their state and serves it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from esper_exporter.exporter_parts import Parts
from esper_exporter.fork_handlers import follow_forks
from esper_exporter.serve.interfaces import Served
from esper_exporter.serve.negotiation import MediaType, negotiate
from esper_exporter.serve.registration import Registration
from esper_exporter.serve.run_summary import RunSummary
from esper_exporter.serve.server import MetricsServer
from esper_exporter.settings import Settings, SettingsArguments, override, read_settings
from esper_exporter.shutdown.ending import Ending
from esper_exporter.shutdown.process import unwatch, watch
from esper_exporter.state import counted
from esper_exporter.state.failure_reason import Reason
from esper_exporter.state.ingest import utc_now
from esper_exporter.state.state_lock import WAIT_SECONDS

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from esper_exporter.journal.writer import JournalWriter
    from esper_exporter.probes.gpu.driver import Driver

COLLECTOR_SECONDS = 0.5


class Exporter:
    """An in-process Prometheus exporter for one training process. Thread-safe.

    It is a backend of esper's hub (``start``, ``emit``, ``close``) and a context manager. Without a
    hub, feed it: ``emit`` takes live events or dicts, ``emit_line`` JSON lines, `observe_snapshot`
    an aggregated snapshot. It raises ValueError for a bad setting and TypeError for an unknown
    argument when it is made, and nothing into the training after that.

    Every setting is a keyword argument and an environment variable (``ESPER_EXPORTER_PORT`` …);
    ``settings`` replaces the environment, and keyword arguments win over it.

    - Serving: ``host`` (the loopback by default), ``port`` (0: any free one, "off": none),
      ``unix_socket``, ``allowed_hosts``, ``web_config`` (TLS and passwords), ``file_sd``, ``share``
      (the directory that a node agent reads, "off": none), ``push…`` (receiver of remote write).
    - The run: ``run_id`` (by default the event's id and start time), ``rank``, ``job_id``,
      ``job_partition`` and ``job_user`` (by default Slurm's), ``explosion_norm`` (for trainers that
      do not report what they clip to), ``journal``.
    - The end: ``state_dir`` for latches and the last page ("off": none), ``textfile_dir``,
      ``linger`` and ``term_linger`` (seconds to wait for scrapers at most; after a SIGTERM),
      ``watch_process`` False where this process is not the training.
    - The machine: ``gpu_vitals`` and ``host_vitals`` ("auto", "on", "off"), ``vitals_interval`` and
      ``gpu_slow_interval`` in seconds, ``telemetry_dir`` and ``checkpoint_dir`` for free space.

    ``gpu_driver`` replaces NVML and ``clock`` the time, for tests.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        gpu_driver: Driver | None = None,
        clock: Callable[[], datetime] = utc_now,
        **arguments: Unpack[SettingsArguments],
    ) -> None:
        if settings is None:
            settings = read_settings(arguments)
        elif arguments:
            settings = override(settings, arguments)
        self.settings = settings
        self._clock = clock
        self._pid = os.getpid()
        parts = self._parts = Parts(settings, gpu_driver, clock)
        self._lock = parts.lock
        self._runs = parts.runs
        self._ingest = parts.ingest
        self.page = parts.api
        self._registration = Registration(settings.file_sd, settings.host, self)
        self._ending = Ending(
            self,
            parts.tracker,
            linger=settings.linger,
            term_linger=settings.term_linger,
            push_linger=settings.push_linger,
            push_end=parts.push_end,
            is_run=settings.watch_process,
        )
        self._server: MetricsServer | None = None
        self._server_pid = 0
        self._closers: list[Callable[[], None]] = []
        follow_forks(parts)

    @property
    def journal(self) -> JournalWriter | None:
        """Writes the journal, None without one."""
        return self._parts.journal

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve the page, in a separate thread. Harmless when it is served already.

        A taken port is a warning and retried in the background, unless ``strict``.
        """
        settings = self.settings
        self._parts.hub.use_caller()
        if self._parts.share is not None:
            self._parts.share.on_late_opening = self.start
            self._parts.share.start()
        unix_socket = settings.unix_socket
        if unix_socket is None and self._parts.share is not None and settings.web_config is None:
            unix_socket = self._parts.share.socket()
        with self._parts.starting:
            if self._server is not None and self._server_pid != os.getpid():
                self._server = None  # its parent's: a forked child opens its own socket
            if self._server is None and (settings.port is not None or unix_socket):
                self._server_pid = os.getpid()
                self._server = MetricsServer(
                    self._parts.pages,
                    host=settings.host,
                    port=settings.port,
                    unix_socket=unix_socket,
                    allowed_hosts=settings.allowed_hosts or (),
                    web_config=settings.web_config,
                    strict=settings.strict,
                    on_error=lambda _where: self._parts.log_once.error("server"),
                )
            server = self._server
        if server is not None:
            server.start()
        with self._parts.starting:
            if self._server is server:
                self._parts.vitals.start(of_process_only=self._agent_serves())
        self._lock.submit(self._runs.go_on)
        self._registration.start()
        self._parts.start_pushing()
        if self.settings.watch_process:
            watch(self._ending)

    def use_hub(self, hub: object) -> None:
        """Name the telemetry hub that delivers this exporter's events, if its ``add_backend`` did
        not start it: the exporter flushes it before it judges an end, and exports its counters.

        ``hub`` has ``flush(timeout)`` and ``get_health_snapshot()``; else TypeError.
        """
        self._parts.hub.use(hub)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the exporter is closed, before the runs have finished."""
        self._closers.append(callback)

    def close(self) -> None:
        """Stop serving; the page can still be rendered. Harmless when not started.

        The runs have finished then, or failed if an exception is on its way. The server stays until
        every scraper has fetched that, and each latch, at most ``linger`` seconds.
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
                self._parts.log_once.error("closing")
        with self._parts.starting:
            server = self._server
        try:
            self._ending.closing(error)
        finally:
            # Last, so that whatever comes in while it stays up is still noticed.
            with self._parts.starting:
                if self._server is server:
                    self._server = None
                    self._parts.vitals.stop()
            unwatch(self._ending)
            self.leave()
            if self._parts.share is not None:
                self._parts.share.close()
            self._parts.vitals.stop()
            if self.journal is not None:
                self.journal.close()
            if server is not None:
                server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._close(error)

    @property
    def port(self) -> int | None:
        """The TCP port that is served, None while none is."""
        return self._server.port if self._server is not None else None

    @property
    def url(self) -> str | None:
        """Address of the page without a trailing slash, None while it is not served;
        that of the node agent or of ``esper-exporter run`` where one of them serves it instead."""
        own = self._server.url if self._server is not None and self._public else None
        if own is None and self._parts.share is not None:
            return self._parts.share.agent_url()
        return own

    # -- how it ends -------------------------------------------------------------------------

    def flush_hub(self) -> None:
        """Wait, 2 seconds at most, until the hub has delivered the events that it holds."""
        self._parts.hub.flush()

    def mark_ended(self, reason: Reason | None, error: BaseException | None = None) -> bool:
        """Mark the current runs as finished (None) or failed, by ``error`` where that is known;
        return whether that is news. Never raises."""
        return self._parts.keeper.mark_ended(reason, error, self._clock())

    def last_end(self) -> float | None:
        """When the newest end of a run came onto the page, by ``time.monotonic()``."""
        return self._runs.last_end

    def events_taken(self) -> int:
        """Events received so far, good or bad."""
        return self._parts.counts.events

    def _agent_serves(self) -> bool:
        """Whether a node agent serves the page, and keeps serving it when this process is gone."""
        return self._parts.share is not None and self._parts.share.agent_serves()

    @property
    def _public(self) -> bool:
        """Whether this process serves clients other than the agent of its node."""
        return self.settings.port is not None or self.settings.unix_socket is not None

    def serving(self) -> bool:
        """Whether the end of this process ends the page: an agent serves it longer."""
        if self._agent_serves() or not self._public:
            return False
        return self._server is not None and self._server.listening

    def keep(self) -> None:
        """Write what must outlive the process: the latches, and the page as it is now."""
        self._parts.keeper.keep()

    def leave(self) -> None:
        """Remove the target file: there is nothing to scrape any more."""
        self._registration.end()

    # -- what comes in ---------------------------------------------------------------------

    def emit(self, event: object) -> None:
        """Apply one event: a live esper event or its dict form. Never raises."""
        self._ingest.take(event)

    def emit_line(self, line: bytes | str) -> None:
        """Apply one JSON line of the real system's telemetry file. Never raises."""
        self._ingest.take_line(line)

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
        """Apply an aggregated SanctumSnapshot (an object or its dict form). Never raises.

        For a trainer with an aggregator instead of events. ``group_id`` is the A/B
        group it belongs to, "default" by default.
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
        self._lock.submit(lambda: self._runs.report_rank_step(step, seconds, now))

    def check_ranks(
        self, step: int, *, loss: float | None = None, gradient_norm: float | None = None
    ) -> None:
        """Report values of a step that are the same on every rank unless one computes wrongly.

        Give what the loop has after the all-reduce, as numbers on the host. Never raises.
        """
        self._lock.submit(lambda: self._runs.check_ranks(step, loss, gradient_norm))

    def end_recordings(self) -> None:
        """The events were recordings', and there are no more: runs that stop short of their last
        batch have ended with their last event. Never raises.
        """
        self._lock.submit(self._runs.end_recordings)

    def probe_failed(self) -> None:
        """Count an error that a probe caught in itself and is handling now. Never raises."""
        self._parts.log_once.error("probe")

    def now(self) -> datetime:
        """The time by the exporter's clock."""
        return self._clock()

    def probe_disagreed(self, field: str) -> None:
        """Count a field for which the trainer and the probe reported different values."""
        self._parts.count(counted.PROBE_DISAGREEMENTS, field)

    def probe_seam(self, seam: str, present: bool) -> None:
        """Record whether a seam of the trainer is measured."""
        self._lock.submit(partial(self._parts.own.seam, seam, present))

    # -- what goes out ---------------------------------------------------------------------

    def render(self, accept: str | MediaType | None = None, gzip: bool = False) -> bytes:
        """The whole page as UTF-8 bytes, in the format that an ``Accept`` header asks for.

        Without one it is the Prometheus text format. With ``gzip`` the bytes are compressed.
        """
        media = accept if isinstance(accept, MediaType) else negotiate(accept)
        return self._parts.pages.render(media, gzip)

    def add_collector(
        self, collector: Collector, name: str | None = None, *, seconds: float = COLLECTOR_SECONDS
    ) -> None:
        """Put a prometheus_client collector's families on the page too.

        Each runs on a separate thread and is isolated: when it raises, is not back
        within ``seconds``, or has a family that is on the page already, only that is left out, and
        ``esper_exporter_collector_success{collector}`` says so. ``name`` is that label (by default
        its class' name).

        Raises ValueError for a name that is taken, or for what is no collector.
        """
        self._parts.page.renderer.add(collector, name or type(collector).__name__, seconds)

    def collector(self) -> Collector:
        """The page as a collector for a prometheus_client registry of one's own."""
        return self._parts.page.collector()

    def served(self, page: Served) -> None:
        """Note a page that a client got."""
        self._parts.pages.served(page)

    def ready(self) -> bool:
        """Whether there is a run to show. Waits for no lock."""
        return self._parts.pages.ready()

    def summaries(self) -> tuple[RunSummary, ...]:
        """All runs in short, the newest last; as they were where another thread is busy."""
        return self._parts.pages.summaries()

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
