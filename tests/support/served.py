"""A page that a scraper got, for tests that need no server."""

from __future__ import annotations

import time

from esper_exporter.serve.interfaces import Served


def page_seen(asked_at: float | None = None) -> Served:
    """A complete page, asked for now unless a moment of ``time.monotonic`` is given."""
    return Served(
        address="127.0.0.1",
        user_agent="Prometheus/2.53.3",
        asked_at=time.monotonic() if asked_at is None else asked_at,
        seconds=0.001,
        size=1,
        format="text",
        timeout=10.0,
        complete=True,
    )
