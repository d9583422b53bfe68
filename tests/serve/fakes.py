"""A page source that tests steer: our own interface, filled with as little as it takes."""

from __future__ import annotations

import gzip as gzip_module
import threading
from collections.abc import Callable

from esper_exporter.serve.interfaces import Served, Visit
from esper_exporter.serve.messages import Answer, Route
from esper_exporter.serve.negotiation import MediaType


class FakeSource:
    """Serves ``body``, with its end mark in OpenMetrics.

    ``before`` runs in every render, and may wait or raise.
    """

    def __init__(self, body: bytes = b"esper_run_info 1\n") -> None:
        self.body = body
        self.before: Callable[[], None] = lambda: None
        self.is_ready = True
        self.rendered: list[tuple[MediaType, bool]] = []
        self.threads: set[str] = set()
        self.visits: list[Visit] = []
        self.all_served: list[Served] = []
        self.changed = threading.Condition()

    def part(self, _query: str) -> None:
        return None

    def render(self, media: MediaType, gzip: bool) -> bytes:
        self.rendered.append((media, gzip))
        self.threads.add(threading.current_thread().name)
        self.before()
        page = self.body + (b"# EOF\n" if media.format == "openmetrics" else b"")
        return gzip_module.compress(page, 1) if gzip else page

    def page_routes(self) -> dict[str, Route]:
        html = ((b"content-type", b"text/html; charset=utf-8"),)
        return {"/": Answer(200, b"<!doctype html><title>page</title>\n", html)}

    def ready(self) -> bool:
        return self.is_ready

    def visited(self, visit: Visit) -> None:
        with self.changed:
            self.visits.append(visit)
            self.changed.notify_all()

    def served(self, page: Served) -> None:
        with self.changed:
            self.all_served.append(page)
            self.changed.notify_all()

    @property
    def scrapes(self) -> list[Served]:
        """The pages that arrived."""
        return [page for page in self.all_served if page.complete]

    def wait_for_scrapes(self, count: int, seconds: float = 5.0) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.scrapes) >= count, seconds)
