"""The routes apart from `/metrics`: which path gives which answer.

A route is a fixed `Answer`, or a function from a request to an answer. The server runs functions
on a worker thread, because they may wait for the exporter's lock, and abandons them at the
scrape's timeout. To add a page, add a row to `routes`. A client that caches an answer with an
``etag`` gets a 304 afterwards; every answer carries a strict ``Content-Security-Policy`` unless
its fields override it.
"""

from __future__ import annotations

from collections.abc import Mapping

from esper_exporter.serve.interfaces import PageSource
from esper_exporter.serve.messages import Answer, Request, Route, plain

METRICS_PATH = "/metrics"

POSTED = frozenset({"/api/v1/replay"})
"""Paths that accept POST; all others accept only GET and HEAD."""

NOT_FOUND = plain(404, "Not found. The metrics are at /metrics.")
_HEALTHY = plain(200, "esper-exporter is healthy.")
_READY = plain(200, "esper-exporter is ready.")
_NOT_READY = plain(503, "Not ready: no run has started yet.", (b"retry-after", b"5"))


def routes(source: PageSource) -> Mapping[str, Route]:
    """All routes but `/metrics`, by exact path."""

    def ready(_request: Request) -> Answer:
        return _READY if source.ready() else _NOT_READY

    return {**source.page_routes(), "/-/healthy": _HEALTHY, "/-/ready": ready}
