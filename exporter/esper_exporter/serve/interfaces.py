"""The interface between the server and the page's owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from esper_exporter.serve.messages import Route
from esper_exporter.serve.negotiation import MediaType


@dataclass(frozen=True, slots=True)
class Served:
    """A page of metrics rendered for a client, and whether the client received it.

    Times are ``time.monotonic()``. Rendering starts after ``asked_at``, so the page shows
    everything published before then.
    """

    address: str
    """The client's IP address, ``unix`` for a unix socket."""
    user_agent: str
    """The ``User-Agent`` header, cut to 256 characters; empty without one."""
    asked_at: float
    """When the server had read the request."""
    seconds: float
    """From then until the last byte was written to the socket, or the client was lost."""
    size: int
    """Bytes of the body as sent (compressed)."""
    format: str
    """``text`` or ``openmetrics``."""
    timeout: float | None
    """``X-Prometheus-Scrape-Timeout-Seconds``; None where the client sent none."""
    complete: bool
    """Whether the client received the page: its kernel acknowledged the last byte within its
    timeout, and it did not drop the connection. Only such a page counts as seen."""
    connection: int = 0
    """See `Visit`."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A client's request for a page of metrics, whatever its outcome. Fields as in `Served`."""

    address: str
    user_agent: str
    asked_at: float
    timeout: float | None
    connection: int
    """Number of the client's connection: all pages on one connection go to one client, which
    distinguishes two scrapers on one machine."""


Render = Callable[[MediaType, bool], bytes]
"""Renders a page in a format, compressed when asked."""


class PageSource(Protocol):
    """The page's owner. The server calls every method on a worker thread, never on its event
    loop: each may wait for a lock."""

    def render(self, media: MediaType, gzip: bool) -> bytes:
        """Render the page in one format, compressed with ``gzip``; thread-safe.

        ``media.escaping`` is for metrics with non-ASCII names: None means ``underscores``.
        An exception becomes a 500 for this client only.
        """

    def part(self, query: str) -> Render | None:
        """What renders the part of the page that a query asks for; None for the whole page."""

    def page_routes(self) -> Mapping[str, Route]:
        """Routes of the browser page and its JSON, including ``/``."""

    def ready(self) -> bool:
        """Whether there is something to scrape: a run has started or a snapshot was observed."""

    def visited(self, visit: Visit) -> None:
        """Called when a page of metrics was rendered for a client; comes before `served`, which
        may come only when the scraper's timeout has passed."""

    def served(self, page: Served) -> None:
        """Called once for each GET of a page of metrics, delivered completely or not.

        Not called for HEAD, nor for a client that was lost before its page was rendered. The
        server follows a client that sends its timeout until it knows that the page arrived: by
        the next request, a graceful close, or the end of the timeout.
        """
