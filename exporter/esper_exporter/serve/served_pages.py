"""What the server serves: the live page, and the browser page's addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from esper_exporter.metrics.renderer import Renderer
from esper_exporter.serve.interfaces import Served, Visit
from esper_exporter.serve.messages import Route
from esper_exporter.serve.negotiation import MediaType
from esper_exporter.serve.page.api import PageApi
from esper_exporter.serve.page.site import page_routes
from esper_exporter.serve.run_summary import RunSummary, summary_of
from esper_exporter.state import counted
from esper_exporter.state.registry import RunRegistry
from esper_exporter.state.self_counts import SelfCounts
from esper_exporter.state.state_lock import StateLock

_WAIT_SECONDS = 0.02


class Watcher(Protocol):
    """Follows which scraper fetched what."""

    def visited(self, visit: Visit) -> None:
        """Note that a client asked for a page."""

    def served(self, page: Served) -> None:
        """Note a page that a client got."""


class ServedPages:
    """The `PageSource` of an exporter.

    ``settle`` is called after each page: it does what had to wait until the state was free.
    """

    def __init__(
        self,
        lock: StateLock,
        runs: RunRegistry,
        counts: SelfCounts,
        renderer: Renderer,
        api: PageApi,
        watcher: Watcher,
        settle: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._runs = runs
        self._counts = counts
        self._renderer = renderer
        self._api = api
        self._watcher = watcher
        self._settle = settle
        self._summaries: tuple[RunSummary, ...] = ()

    def render(self, media: MediaType, gzip: bool) -> bytes:
        """The whole page in one format, compressed when asked."""
        page = self._renderer.render(media.format, gzip)
        self._settle()
        return page

    def page_routes(self) -> Mapping[str, Route]:
        """The addresses of the browser page."""
        return page_routes(self._api)

    def part(self, _query: str) -> None:
        """The page of one process has no parts."""

    def ready(self) -> bool:
        """Whether there is a run to show. Waits for no lock."""
        return any(entry.state.began for entry in list(self._runs.current.values()))

    def visited(self, visit: Visit) -> None:
        """Note that a client asked for a page."""
        self._watcher.visited(visit)

    def served(self, page: Served) -> None:
        """Note, and count, a page that a client got."""
        self._watcher.served(page)
        if not page.complete:
            return

        def count() -> None:
            self._counts.count(counted.SCRAPES)
            self._counts.observe(counted.SCRAPE_DURATION, page.seconds)

        self._lock.submit(count, wait=0.0)

    def summaries(self) -> tuple[RunSummary, ...]:
        """All runs in short, the newest last; as they were where another thread is busy."""

        def now() -> tuple[RunSummary, ...]:
            self._summaries = tuple(map(summary_of, self._runs.everything()))
            return self._summaries

        return self._lock.read(now, lambda: self._summaries, _WAIT_SECONDS)
