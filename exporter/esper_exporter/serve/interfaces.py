"""What the server asks of whoever owns the page: the border between serving and knowing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from esper_exporter.serve.messages import Route
from esper_exporter.serve.negotiation import MediaType


@dataclass(frozen=True, slots=True)
class LandingRun:
    """One run at a glance, as the landing page shows it."""

    run_id: str
    group_id: str
    task: str | None
    """Name of the task that is trained, None when unknown."""
    state: str
    """One word: ``running``, ``finished``, ``ended`` (nothing says how), ``waiting``,
    ``superseded``, or ``failed (reason)``."""
    latches: tuple[str, ...]
    """The lit latches: ``head/kind`` (``op/nan``) of heads, then sources (``gradients``)."""
    last_event_timestamp: float | None
    """Unix time of the last event in seconds, None before the first."""
    policy_updates: int | None = None
    """Policy updates seen so far, None when not measured."""
    rank: int = 0
    """The process' place among those that train together."""


@dataclass(frozen=True, slots=True)
class LandingPage:
    """What ``/`` shows: version, runs and links."""

    version: str
    ready: bool
    runs: tuple[LandingRun, ...] = ()
    metrics_path: str = "/metrics"
    links: tuple[tuple[str, str], ...] = ()
    """Further links as (title, address); only http, https and local paths are shown as links."""


@dataclass(frozen=True, slots=True)
class Served:
    """One page of metrics that was rendered for a client, and what became of it.

    Times are ``time.monotonic()``. The page was rendered after ``asked_at``, so it shows
    everything that was published before then.
    """

    address: str
    """The client's IP address, ``unix`` for a unix socket."""
    user_agent: str
    """The ``User-Agent`` header, cut to 256 characters; empty without one."""
    asked_at: float
    """When the server had read the request."""
    seconds: float
    """From then until the last byte was handed to the client's socket, or the client was lost."""
    size: int
    """Bytes of the body as sent (compressed)."""
    format: str
    """``text`` or ``openmetrics``."""
    timeout: float | None
    """Seconds of ``X-Prometheus-Scrape-Timeout-Seconds``; None where the client named none."""
    complete: bool
    """Whether the client got the page: its system acknowledged the last byte within its timeout,
    and it did not give the connection up. Only such a page may count as seen."""
    connection: int = 0
    """See `Visit`."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A client asked for a page of metrics, whatever becomes of it. Fields are as in `Served`."""

    address: str
    user_agent: str
    asked_at: float
    timeout: float | None
    connection: int
    """A number of the client's connection: pages that go over one connection go to one client,
    which tells two scrapers on one machine apart."""


Render = Callable[[MediaType, bool], bytes]
"""Renders a page in a format, compressed when asked."""


class PageSource(Protocol):
    """The owner of the page. The server calls every method on one of its worker threads, never on
    its event loop: each may wait for a lock."""

    def render(self, media: MediaType, gzip: bool) -> bytes:
        """The whole page in one format, compressed when asked; thread-safe.

        ``media.escaping`` is for metrics with names beyond ASCII: None means ``underscores``.
        An exception becomes a 500 for this one client.
        """

    def part(self, query: str) -> Render | None:
        """What renders the part of the page that a query asks for; None for the whole page."""

    def page_routes(self) -> Mapping[str, Route]:
        """The addresses of the browser page and of its JSON, ``/`` among them."""

    def ready(self) -> bool:
        """Whether there is something to scrape: a run has started or a snapshot was given."""

    def visited(self, visit: Visit) -> None:
        """A client asked for a page of metrics that was rendered for it; called before `served`,
        which may be called only when the scraper's timeout has passed."""

    def served(self, page: Served) -> None:
        """A page of metrics was served, completely or not; called once for each GET of it.

        Not called for HEAD, nor for a client that was lost before its page was rendered. A client
        that names its timeout is followed until the page is known to have arrived: its next
        request, its orderly close, or the end of its timeout.
        """
