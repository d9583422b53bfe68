"""From one consistent state to the bytes of a page, in the format that was asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from esper_exporter.metrics.exposition import OPENMETRICS, TEXT, Capture, Page
from esper_exporter.metrics.metric import RUN_LABELS
from esper_exporter.metrics.row_types import compiled

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from esper_exporter.metrics.user_collectors import Result, UserCollectors

GZIP_LEVEL = 1
OWN_COLLECTOR = "esper"
"""The name under which the exporter's own metrics are reported beside added collectors."""
END = b"# EOF\n"

Take = Callable[[Sequence["Result"]], Capture]
"""A copy of the table, with the results of the added collectors."""


class Renderer:
    """Renders pages; one at a time, since a page's layout is kept from one to the next.

    ``take`` captures the exporter's state. ``own_process`` says whether that has
    prometheus_client's metrics of the process itself. ``inside`` says whether the calling thread
    holds the state: then it must not wait for a thread that waits for the state.

    A finaliser or a collector may ask for a page while its own thread, or the one that waits for
    it, renders one: such a page is laid out anew, and has no added collectors.
    """

    def __init__(
        self,
        take: Take,
        own_process: Callable[[], bool],
        inside: Callable[[], bool] = lambda: False,
    ) -> None:
        self._take = take
        self._inside = inside
        self._own_process = own_process
        self._metrics = compiled().catalogue.metrics
        self._run_metrics = tuple(m for m in self._metrics if m.labels[:1] == RUN_LABELS[:1])
        self._pages = {form: Page(self._metrics, form) for form in (TEXT, OPENMETRICS)}
        self._of_runs = Page(self._run_metrics, TEXT)
        self._user_collectors: UserCollectors | None = None
        self.series = 0
        self._renew_locks()

    def _renew_locks(self) -> None:
        self._lock = threading.RLock()
        self._collectors_lock = threading.RLock()
        self._rendering = False
        self._collecting = False

    def after_fork_in_child(self) -> None:
        """Begin with new locks: the holders of the old ones may not be in the child."""
        self._renew_locks()

    def add(self, collector: Collector, name: str, seconds: float) -> None:
        """Add a collector. Raises ValueError."""
        from esper_exporter.metrics.user_collectors import UserCollectors

        with self._collectors_lock:
            added = self._user_collectors or UserCollectors(
                self._metrics, OWN_COLLECTOR, self._own_process
            )
            added.add(collector, name, seconds)
            self._user_collectors = added

    def render(self, form: str, gzip: bool) -> bytes:
        """The whole page, UTF-8."""
        added, results = self._collect(form)
        body = self._render(form, results)
        if added:
            body = body.removesuffix(END) + added + (END if form == OPENMETRICS else b"")
        if gzip:
            from isal import igzip

            return bytes(igzip.compress(body, GZIP_LEVEL))
        return body

    def _collect(self, form: str) -> tuple[bytes, list[Result]]:
        """The added collectors' part of a page. Apart from the page's own lock: what is waited
        for here must not hold up a latch's page."""
        collectors = self._user_collectors
        if collectors is None or self._inside() or collectors.on_their_thread():
            return b"", []
        with self._collectors_lock:
            if self._collecting:
                return b"", []
            self._collecting = True
            try:
                return collectors.render(form)
            finally:
                self._collecting = False

    def _render(self, form: str, results: Sequence[Result]) -> bytes:
        if self._inside():
            return Page(self._metrics, form).render(self._take(results))
        with self._lock:
            if self._rendering:
                return Page(self._metrics, form).render(self._take(results))
            self._rendering = True
            try:
                page = self._pages[form]
                body = page.render(self._take(results))
                self.series = page.series()
                return body
            finally:
                self._rendering = False

    def render_runs(self) -> bytes:
        """What belongs to runs, in the text format: what outlives the process. The process' own
        metrics have no label that would tell them from another process' on a page of both, and
        added collectors are not waited for."""
        with self._lock:
            if self._rendering:
                return Page(self._run_metrics, TEXT).render(self._take(()))
            self._rendering = True
            try:
                return self._of_runs.render(self._take(()))
            finally:
                self._rendering = False
