"""Which path gives which answer, apart from `/metrics`.

A route is an `Answer` that is known in advance, or a function from a request to an answer. The
server runs functions on a worker thread, because they may wait for the exporter's lock, and gives
them up at the scrape's own limit. To add a page: one row in `routes`. An answer with an ``etag``
is sent once to a client that keeps it (304 afterwards); every answer carries a strict
``Content-Security-Policy`` unless its own fields say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from esper_exporter.serve.interfaces import PageSource
from esper_exporter.serve.messages import Answer, Request, Route, plain

METRICS_PATH = "/metrics"

POSTED = frozenset({"/api/v1/replay"})
"""Paths that a POST changes something at; elsewhere only GET and HEAD are answered."""

NOT_FOUND = plain(404, "Not found. The metrics are at /metrics.")
_HEALTHY = plain(200, "esper-exporter is healthy.")
_READY = plain(200, "esper-exporter is ready.")
_NOT_READY = plain(503, "Not ready: no run has started yet.", (b"retry-after", b"5"))


def routes(source: PageSource) -> Mapping[str, Route]:
    """All paths but `/metrics`, by their exact name."""

    def ready(_request: Request) -> Answer:
        return _READY if source.ready() else _NOT_READY

    return {
        **source.page_routes(),
        "/-/healthy": _HEALTHY,
        "/-/ready": ready,
    }
