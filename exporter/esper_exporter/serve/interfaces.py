"""What the server asks of whoever owns the page: the border between serving and knowing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from esper_exporter.serve.negotiation import MediaType


@dataclass(frozen=True, slots=True)
class LandingRun:
    """One run at a glance, as the landing page shows it."""

    run_id: str
    group_id: str
    task: str | None
    """Name of the task that is trained, None when unknown."""
    state: str
    """One word: ``running``, ``finished``, ``waiting``, ``superseded``, or ``failed (reason)``."""
    latches: tuple[str, ...]
    """The latches that are set, as ``head/kind`` (``op/nan``); empty when none is."""
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


class PageSource(Protocol):
    """The owner of the page. Every method may be called on the server's thread at any time."""

    def render(self, media: MediaType, gzip: bool) -> bytes:
        """The whole page in one format, compressed when asked; a few milliseconds, thread-safe.

        ``media.escaping`` is for metrics with names beyond ASCII: None means ``underscores``.
        An exception becomes a 500 for this one client.
        """

    def landing(self) -> LandingPage:
        """What the landing page shows now."""

    def ready(self) -> bool:
        """Whether there is something to scrape: a run has started or a snapshot was given."""

    def scraped(self, *, asked_at: float, seconds: float, size: int, format: str) -> None:
        """A complete page has been handed to a client's connection.

        ``asked_at`` is when the request was complete (``time.monotonic``), ``seconds`` runs from
        then to the last byte written, ``size`` is the body as sent (compressed), ``format`` is
        ``text`` or ``openmetrics``. Not called for HEAD, nor when the client went away before the
        end. The page was rendered after the request came.
        """

    def needs_thread(self) -> bool:
        """Whether ``render`` may take long (foreign collectors), so that it must not hold up the
        server: it is then run on a worker thread, and given up at the scrape's own limit."""
