"""NodeAgent: one page for all processes of a node, alive or gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
from isal import igzip

from esper_exporter.agent.agent_rows import AgentRows, state_of
from esper_exporter.agent.layout_log import Family, own_schema, parse_schema
from esper_exporter.agent.merged_page import FamilyOrder, MergedPage, Part, Wanted
from esper_exporter.agent.node_page import Line, NodePage, line_of
from esper_exporter.agent.page_view import Lines, RunKey
from esper_exporter.agent.process_list import ProcessList
from esper_exporter.agent.share_claim import lock_shares, release, write_address
from esper_exporter.agent.share_directory import AGENT_LOCK
from esper_exporter.agent.status_page import ProcessLine, status_page
from esper_exporter.agent.tracked_process import TrackedProcess
from esper_exporter.daemon_thread import start_daemon
from esper_exporter.metrics.exposition import FORMATS, Capture, build_layout, capture
from esper_exporter.metrics.renderer import GZIP_LEVEL
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.table import ValueTable
from esper_exporter.metrics.vital_rows import VitalRows
from esper_exporter.probes.samplers import Vitals
from esper_exporter.serve.interfaces import Render, Served, Visit
from esper_exporter.serve.messages import Answer, Request, Route
from esper_exporter.serve.negotiation import MediaType
from esper_exporter.serve.page.site import page_routes
from esper_exporter.serve.page.system import gpu_reasons, system_json
from esper_exporter.serve.registration import Registration
from esper_exporter.serve.run_summary import RunSummary
from esper_exporter.serve.server import MetricsServer
from esper_exporter.settings import KEEP_SECONDS, Settings
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker

logger = logging.getLogger("esper_exporter")

TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Settings of an agent.

    ``shares`` are the directories to serve, ``keep_seconds`` how long the page of an ended
    process stays, ``file_sd`` a directory for the target file of Prometheus's file_sd: one target
    represents the whole node. ``gpu_vitals`` and ``host_vitals`` are "on" or "off".
    """

    shares: Sequence[Path]
    host: str = "127.0.0.1"
    port: int = 9108
    unix_socket: Path | None = None
    web_config: Path | None = None
    strict: bool = True
    keep_seconds: float = KEEP_SECONDS
    gpu_vitals: str = "on"
    host_vitals: str = "on"
    vitals_interval: float = 5.0
    allowed_hosts: Sequence[str] = ()
    file_sd: Path | None = None


class NodeAgent:
    """Serves the pages of every process of its shares on one port.

    It owns a table for the machine, its GPUs and itself; the runs' values are in the shares. An
    agent holds a lock in each share that it serves, so that an exporter knows that it need not
    linger. All methods may be called from any thread. ``clock`` returns Unix seconds.

    Raises ValueError for bad settings, OSError where it cannot create a share.
    """

    def __init__(self, settings: AgentSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        blocks = compiled()
        self._table = ValueTable(blocks.blocks)
        self._captured: Capture | None = None
        self._own_lines: tuple[int, Lines] | None = None
        self._rows = AgentRows(self._table, clock())
        self._vitals = Vitals(
            VitalRows(self._table, blocks),
            Settings(
                gpu_vitals=settings.gpu_vitals,
                host_vitals=settings.host_vitals,
                vitals_interval=settings.vitals_interval,
                state_dir=None,
            ),
            None,
            lambda: logger.debug("a sampler failed"),
        )
        self._order = FamilyOrder()
        self._order.mapping(_own_families())
        self._pages = {form: MergedPage(self._order, form) for form in FORMATS}
        self._filtered = {form: MergedPage(self._order, form) for form in FORMATS}
        self._tracker = ScrapeTracker()
        self._list = ProcessList(
            settings.shares, settings.keep_seconds, self._seen_since, self._ended
        )
        self._locks: list[int] = []
        self._address: str | None = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.server = MetricsServer(
            self,
            host=settings.host,
            port=settings.port,
            unix_socket=settings.unix_socket,
            web_config=settings.web_config,
            strict=settings.strict,
            allowed_hosts=tuple(settings.allowed_hosts),
        )
        self._page = NodePage(
            self._lines,
            lambda: system_json(*self._vitals.reports()),
            self._clock,
            lambda now: gpu_reasons(self._vitals.reports()[0], now),
        )
        self._registration = Registration(settings.file_sd, settings.host, self)

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Lock the shares, serve, and check the processes each second.

        Raises BlockingIOError where another process serves a share, and the server's errors.
        """
        self._locks = lock_shares(self._settings.shares, AGENT_LOCK)
        # Until the server has its port the files still name the server before.
        self._write_address(None)
        self.server.start()
        self._publish_address()
        self._registration.start()
        self._vitals.start()
        self._thread = start_daemon(self._run, "esper-agent-tick")

    def close(self) -> None:
        """Stop serving; the shares stay for the next agent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5 * TICK_SECONDS)
        self._vitals.stop()
        self._registration.end()
        self.server.close()
        self._write_address(None)
        release(self._locks)

    def _publish_address(self) -> None:
        """Name the address to the processes of the shares; a taken port is retried, so that it may
        be known later."""
        address = self.server.url
        if address == self._address:
            return
        self._address = address
        self._write_address(address)

    def _write_address(self, address: str | None) -> None:
        for lock in self._locks:
            try:
                write_address(lock, address)
            except OSError as problem:
                logger.debug("the address could not be written: %s", problem.strerror)

    def _run(self) -> None:
        """Find deaths and retire pages also without scrapes."""
        while not self._stop.wait(TICK_SECONDS):
            try:
                self._publish_address()
                with self._lock:
                    self._list.refresh(self._clock())
            except Exception:
                logger.exception("checking the shares failed")

    def wait_until_seen(
        self, seconds: float, *, failed: bool, ends_at_once: str, pushed: bool = False
    ) -> bool:
        """Wait until every regular scraper has fetched the current page; return whether it has.

        Returns at once if no scraper comes and nothing failed or what failed was ``pushed``.
        ``ends_at_once`` is for the log: how the user can end the wait.
        """
        if failed or self._tracker.scraped_regularly:
            self._tracker.serious()
        if pushed:
            self._tracker.delivered(time.monotonic())
        return self._tracker.linger(seconds, ends_at_once)

    def linger(self, seconds: float) -> bool:
        """Serve on until every regular scraper has fetched how the processes ended, at most
        ``seconds``; return whether it has. Returns at once if nothing new is to be fetched.
        """
        with self._lock:
            shown = self._list.refresh(self._clock())
            unseen = [each for each in shown if not each.alive and not each.seen]
            failed = any(_bad(each) for each in unseen)
        if not unseen:
            return True
        return self.wait_until_seen(seconds, failed=failed, ends_at_once="a second signal")

    def retire(self, directories: Iterable[Path]) -> None:
        """Retire the pages of these processes."""
        with self._lock:
            self._list.remove(directories)

    def _seen_since(self, moment: float) -> bool:
        return self._tracker.seen_since(time.monotonic() - (self._clock() - moment))

    def _ended(self, process: TrackedProcess) -> None:
        end = process.end
        if end is not None and end.reason:
            reason = end.reason if end.reason in self._rows.deaths else "unknown"
            self._rows.deaths[reason] += 1

    # -- what the registration asks --------------------------------------------------------------

    @property
    def port(self) -> int | None:
        """The TCP port, None while unknown."""
        return self.server.port

    @property
    def url(self) -> str | None:
        """The page's address on this machine, None while unknown."""
        return self.server.url

    def serving(self) -> bool:
        """Whether clients can fetch the page."""
        return self.server.listening

    def summaries(self) -> tuple[RunSummary, ...]:
        """No run: the target is the node, whatever runs on it."""
        return ()

    # -- what the server asks ------------------------------------------------------------------

    def part(self, query: str) -> Render | None:
        """The page of some runs: ``run_id=`` and ``rank=`` in the query, any number of times."""
        wanted = wanted_runs(query)
        return None if wanted is None else partial(self.render, wanted=wanted)

    def render(self, media: MediaType, gzip: bool, wanted: Wanted | None = None) -> bytes:
        """The page of the node, or of some runs."""
        with self._lock:
            now = self._clock()
            shown = self._list.refresh(now)
            parts = self._list.parts(shown)
            self._rows.write(shown, self._list, self._order.conflicts, now)
            self._vitals.refresh(())
            if wanted is None:
                parts = [self._own_part(), *parts]
                page = self._pages[media.format]
            else:
                page = self._filtered[media.format]
            body = page.render(parts, wanted)
        return bytes(igzip.compress(body, GZIP_LEVEL)) if gzip else body

    def _own_part(self) -> Part:
        """The agent's table as a part of the page."""
        state = self._captured = capture(self._table, self._captured)
        known = self._own_lines
        if known is None or known[0] != state.version:
            layout = build_layout(state, compiled().catalogue.metrics)
            starts = np.empty(len(layout.prefixes), dtype=object)
            starts[:] = [b"\n" + start for start in layout.prefixes.tolist()]
            sources = np.zeros(len(starts), np.int64)
            lines = Lines(layout.cells, layout.families, starts, sources, (("", "", ""),))
            known = self._own_lines = state.version, lines
        return Part(known[1], _own_families(), state.values)

    def page_routes(self) -> Mapping[str, Route]:
        """The browser page of all runs, and a plain list of all processes at ``/processes``."""
        return {**page_routes(self._page), "/processes": self._status}

    def _lines(self) -> list[Line]:
        with self._lock:
            return [line_of(process) for process in self._list.refresh(self._clock())]

    def _status(self, _request: Request) -> Answer:
        with self._lock:
            now = self._clock()
            return status_page([_line(each, now) for each in self._list.refresh(now)])

    def ready(self) -> bool:
        """An agent is ready when it serves, also on a node without a run."""
        return True

    def visited(self, visit: Visit) -> None:
        """Note that a client asked for the page."""
        self._tracker.visited(visit)

    def served(self, page: Served) -> None:
        """Note that a client fetched the page."""
        if page.complete:
            with self._lock:
                self._rows.scrapes += 1
        self._tracker.served(page)


def _line(process: TrackedProcess, now: float) -> ProcessLine:
    run, rank = process.view.run_labels()
    state, end = state_of(process), process.end
    if state == "failed" and end is not None:
        state = f"failed: {end.reason}"
    published = process.view.published
    return ProcessLine(
        run_id=run,
        rank=rank,
        state="died without a word" if state == "died" else state,
        failed=end is not None and bool(end.reason),
        latches=process.view.lit(),
        age=None if published is None else max(0.0, now - published.at),
        pid=process.identity.pid,
    )


def _bad(process: TrackedProcess) -> bool:
    """Whether an ended process failed, or has a latch."""
    end = process.end
    return end is None or bool(end.reason) or bool(process.view.lit())


def _own_families() -> tuple[Family, ...]:
    return parse_schema(own_schema()).families


def wanted_runs(query: str) -> Wanted | None:
    """Which runs a query asks for: ``run_id`` and ``rank``, each any number of times. None: all."""
    asked = parse_qs(query, keep_blank_values=True)
    runs, ranks = asked.get("run_id"), asked.get("rank")
    if runs is None and ranks is None:
        return None

    def wanted(run: RunKey) -> bool:
        return (runs is None or run[0] in runs) and (ranks is None or run[2] in ranks)

    return wanted
