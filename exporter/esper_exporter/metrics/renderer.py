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

    from esper_exporter.metrics.user_collectors import ForeignCollectors, Result

GZIP_LEVEL = 1
OWN_COLLECTOR = "esper"
"""The name under which the exporter's own metrics are reported beside added collectors."""
END = b"# EOF\n"

Take = Callable[[Sequence["Result"]], Capture]
"""A copy of the table, once it tells how the added collectors did."""


class Renderer:
    """Renders pages; one at a time, since a page's layout is kept from one to the next.

    ``take`` holds the exporter's lock for a copy, and nothing else here does. ``own_process``
    says whether that has prometheus_client's metrics of the process itself.
    """

    def __init__(self, take: Take, own_process: Callable[[], bool]) -> None:
        self._take = take
        self._own_process = own_process
        self._lock = threading.Lock()
        self._foreign_lock = threading.Lock()
        metrics = compiled().catalogue.metrics
        self._pages = {form: Page(metrics, form) for form in (TEXT, OPENMETRICS)}
        self._of_runs = Page(tuple(m for m in metrics if m.labels[:1] == RUN_LABELS[:1]), TEXT)
        self._foreign: ForeignCollectors | None = None
        self.series = 0

    def add(self, collector: Collector, name: str, seconds: float) -> None:
        """Add a collector. Raises ValueError."""
        from esper_exporter.metrics.user_collectors import ForeignCollectors

        with self._foreign_lock:
            foreign = self._foreign or ForeignCollectors(
                compiled().catalogue.metrics, OWN_COLLECTOR, self._own_process
            )
            foreign.add(collector, name, seconds)
            self._foreign = foreign

    def render(self, form: str, gzip: bool) -> bytes:
        """The whole page, UTF-8."""
        # Apart from the page's own lock: what is waited for here must not hold up a latch's page.
        with self._foreign_lock:
            added, results = (b"", []) if self._foreign is None else self._foreign.render(form)
        with self._lock:
            page = self._pages[form]
            body = page.render(self._take(results))
            self.series = page.series()
        if added:
            body = body.removesuffix(END) + added + (END if form == OPENMETRICS else b"")
        if gzip:
            from isal import igzip

            return bytes(igzip.compress(body, GZIP_LEVEL))
        return body

    def render_runs(self) -> bytes:
        """What belongs to runs, in the text format: what outlives the process. The process' own
        metrics have no label that would tell them from another process' on a page of both, and
        added collectors are not waited for."""
        with self._lock:
            return self._of_runs.render(self._take(()))
