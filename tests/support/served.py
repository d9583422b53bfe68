"""A page that a scraper got, for tests that need no server."""

from __future__ import annotations

import time

from esper_exporter.serve.interfaces import Served

PROMETHEUS = "Prometheus/2.53.3"


def page_seen(
    asked_at: float | None = None,
    *,
    address: str = "127.0.0.1",
    user_agent: str = PROMETHEUS,
    timeout: float | None = 10.0,
    complete: bool = True,
    connection: int = 1,
    seconds: float = 0.001,
) -> Served:
    """A complete page, requested now or at the given ``time.monotonic`` time."""
    return Served(
        address=address,
        user_agent=user_agent,
        asked_at=time.monotonic() if asked_at is None else asked_at,
        seconds=seconds,
        size=1,
        format="text",
        timeout=timeout,
        complete=complete,
        connection=connection,
    )
