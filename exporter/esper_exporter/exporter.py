"""Exporter: takes a run's events in, keeps its page, and serves it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from esper_exporter import __version__
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import Rejected
from esper_exporter.ending import Seen
from esper_exporter.latch_store import LatchStore
from esper_exporter.metrics.blocks import compiled
from esper_exporter.metrics.exposition import OPENMETRICS, TEXT, Capture, Page, capture
from esper_exporter.metrics.own import OwnMetrics
from esper_exporter.metrics.table import ValueTable
from esper_exporter.runs import Entry, NoRun, Runs
from esper_exporter.serve.negotiation import MediaType, negotiate
from esper_exporter.serve.page import LandingPage, LandingRun
from esper_exporter.serve.server import MetricsServer
from esper_exporter.settings import read_settings

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

logger = logging.getLogger("esper_exporter")

GZIP_LEVEL = 1
MAX_WARNINGS = 256


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
    and start time), ``web_config`` is a Prometheus web configuration file, ``state_dir`` a
    directory where latches are kept for a run that is resumed, ``linger`` the seconds that
    ``close`` waits at most for a fault to be scraped (0: not at all). ``clock`` tells the time,
    for tests.

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
        strict: bool | None = None,
        max_series: int | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        linger: float | None = None,
        rank: int | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        given = {
            "port": port,
            "host": host,
            "run_id": run_id,
            "web_config": web_config,
            "unix_socket": unix_socket,
            "strict": strict,
            "max_series": max_series,
            "state_dir": state_dir,
            "linger": linger,
            "rank": rank,
        }
        self.settings = read_settings(given)
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._render_lock = threading.Lock()
        blocks = compiled()
        self._table = ValueTable(blocks.blocks, max_series=self.settings.max_series)
        self._own = OwnMetrics(self._table, blocks, self.settings.max_series, clock().timestamp())
        self._runs = Runs(
            self._table,
            blocks,
            lambda: self._own.count("esper_exporter_series_dropped_total"),
            self.settings.run_id,
            self.settings.rank,
            LatchStore(self.settings.state_dir) if self.settings.state_dir else None,
            self._note_error,
        )
        self._seen = Seen()
        self._pages = {
            exposition: Page(blocks.catalogue.metrics, exposition)
            for exposition in (TEXT, OPENMETRICS)
        }
        self._captured: Capture | None = None
        self._warned: set[str] = set()
        self._in_flight = 0
        self._server: MetricsServer | None = None
        self._closed = False

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve the page, in a thread of its own. Harmless when it is served already.

        A taken port is a warning and retried in the background, unless ``strict``.
        """
        with self._render_lock:
            if self._server is None:
                settings = self.settings
                self._server = MetricsServer(
                    self,
                    host=settings.host,
                    port=settings.port,
                    unix_socket=settings.unix_socket,
                    web_config=settings.web_config,
                    strict=settings.strict,
                    on_error=lambda _where: self._note_error("server"),
                )
            server = self._server
        server.start()
        self._closed = False

    def close(self) -> None:
        """Stop serving; the page can still be rendered. Harmless when not started.

        If a latch was lit that two scrapes have not fetched yet, the server stays until they
        have, at most ``linger`` seconds.
        """
        server, self._server = self._server, None
        if server is not None and os.getpid() == self._pid:
            if server.listening and self.settings.linger > 0:
                self._seen.linger(self.settings.linger)
            server.close()
        self._closed = True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int | None:
        """The TCP port that is served, None while it is not known."""
        return self._server.port if self._server is not None else None

    @property
    def url(self) -> str | None:
        """Address of the landing page without a trailing slash, None while it is not known."""
        return self._server.url if self._server is not None else None

    # -- what comes in ---------------------------------------------------------------------

    def emit(self, event: object) -> None:
        """Take in one event: a live esper event or its dict form. Never raises."""
        self._take(lambda: event)

    def emit_line(self, line: bytes | str) -> None:
        """Take in one JSON line of the real system's telemetry file. Never raises."""
        self._take(lambda: parse_line(line))

    def _take(self, get: Callable[[], object]) -> None:
        if os.getpid() != self._pid:
            return  # a forked child has the parent's exporter in memory and is not it
        begun = time.perf_counter()
        self._in_flight += 1
        try:
            with self._lock:
                try:
                    self._bring(get())
                except Rejected as refused:
                    self._refuse(refused)
                except NoRun as refused:
                    self._own.count("esper_exporter_events_rejected_total", refused.reason)
                if self._runs.new_faults():
                    self._seen.serious()
                self._own.took(time.perf_counter() - begun)
        except Exception:
            self._note_error("emit")
        finally:
            self._in_flight -= 1

    def _bring(self, obj: object) -> None:
        event = read(obj, self._clock)
        self._own.last_event = self._clock()
        if event.ignored:
            self._own.count("esper_exporter_fields_ignored_total", by=float(len(event.ignored)))
            self._warn(f"{event.name}: fields left out, wrong type: {', '.join(event.ignored)}")
        duplicate = self._runs.take(event, self._own.scrapes)
        if duplicate is not None:
            self._own.count("esper_exporter_events_duplicate_total", duplicate)

    def _refuse(self, refused: Rejected) -> None:
        self._own.count("esper_exporter_events_rejected_total", refused.reason)
        self._warn(f"event refused: {refused}")
        if refused.event is not None:
            self._runs.salvage(refused.event)

    def _warn(self, text: str) -> None:
        """Log a warning once per kind, and not for ever new kinds."""
        if text not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(text)
            logger.warning(text)

    def _note_error(self, where: str) -> None:
        """An error of our own: told once with its traceback, counted, and the training goes on."""
        try:
            self._own.count("esper_exporter_internal_errors_total", where)
            if where not in self._warned:
                self._warned.add(where)
                logger.exception("internal error (%s); the training goes on", where)
        except Exception:  # pragma: no cover - nothing is left to tell it with
            return

    def observe_snapshot(self, snapshot: object, *, group_id: str | None = None) -> None:
        """Take in an aggregated SanctumSnapshot (an object or its dict form). Never raises.

        For those who hold an aggregator of their own instead of events. ``group_id`` is the A/B
        group it belongs to, "default" unless said otherwise.
        """
        if os.getpid() != self._pid:
            return
        try:
            from esper_exporter.state.foreign import take_snapshot

            with self._lock:
                entry = self._runs.given(snapshot, group_id, self._clock())
                take_snapshot(entry.state, snapshot, self._clock())
        except Exception:
            self._note_error("snapshot")

    # -- what goes out ---------------------------------------------------------------------

    def _capture(self) -> Capture:
        """One consistent state of everything, in one hold of the lock."""
        with self._lock:
            try:
                self._runs.refresh(self._own.scrapes)
            except Exception:
                self._note_error("publish")
            try:
                self._own.refresh(len(self._runs.everything()), self._in_flight)
            except Exception:
                self._note_error("publish")
            self._captured = capture(self._table, self._captured)
            return self._captured

    def render(self, accept: str | MediaType | None = None, gzip: bool = False) -> bytes:
        """The whole page as UTF-8 bytes, in the format that an ``Accept`` header asks for.

        Without one it is the Prometheus text format. With ``gzip`` the bytes are compressed.
        """
        media = accept if isinstance(accept, MediaType) else negotiate(accept)
        with self._render_lock:
            page = self._pages[media.format]
            body = page.render(self._capture())
            self._own.series = page.series()
        if gzip:
            from isal import igzip

            return bytes(igzip.compress(body, GZIP_LEVEL))
        return body

    def collector(self) -> Collector:
        """The page as a collector for a prometheus_client registry of one's own."""
        from esper_exporter.metrics.collector import TableCollector

        return TableCollector(self._capture, compiled().catalogue.metrics)

    def scraped(self, *, seconds: float, size: int, format: str) -> None:
        """A page has been delivered (called by the server)."""
        with self._lock:
            self._own.scrapes += 1
            self._own.count("esper_exporter_scrapes_total")
            self._own.observe("esper_exporter_scrape_duration_seconds", seconds)
        self._seen.scraped()

    def needs_thread(self) -> bool:
        """Whether rendering may take long."""
        return False

    def ready(self) -> bool:
        """Whether there is a run to show."""
        with self._lock:
            return any(entry.state.began for entry in self._runs.current.values())

    def landing(self) -> LandingPage:
        """What the landing page shows."""
        with self._lock:
            runs = tuple(_landing_run(entry) for entry in self._runs.everything())
        return LandingPage(
            version=__version__, ready=any(run.state != "waiting" for run in runs), runs=runs
        )

    def snapshot(self, group_id: str = "default") -> Any:
        """The live SanctumSnapshot of a group's current run, or None. Read it, do not keep it."""
        with self._lock:
            entry = self._runs.current.get(group_id)
            if entry is None:
                return None
            entry.aggregator.refresh()
            return entry.state.snapshot


def _landing_run(entry: Entry) -> LandingRun:
    state = entry.state
    last = state.last_event_at
    word = "running" if state.began else "waiting"
    return LandingRun(
        run_id=state.identity.run_id,
        group_id=state.identity.group_id,
        task=state.snapshot.task_name or None,
        state=word if state.active else "superseded",
        latches=tuple(f"{head}/{kind}" for head, kind in state.latches.lit_heads()),
        last_event_timestamp=last.timestamp() if last else None,
        policy_updates=int(state.tallies.get("esper_tamiyo_updates_total")),
    )
