"""All limits of the server in one table: time and memory per client and in total."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    connections: int = 512
    """Open connections; at the limit a new one replaces the one that has been idle longest."""
    tls_connections: int = 128
    """The same with TLS, where asyncio gives each connection a buffer of 256 KiB at once: 500
    half-open handshakes took a measured 154 MB."""
    descriptor_share: float = 0.25
    """Share of the process's file descriptor limit for connections: the training needs the
    descriptors and must not run out of them."""
    handshake_seconds: float = 5.0
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    idle_seconds: float = 75.0
    """Between two requests on one connection."""
    write_seconds: float = 30.0
    """For the client to read one response."""
    linger_seconds: float = 1.0
    """For the client to close after the last answer; further input is dropped."""
    head_bytes: int = 16 * 1024
    body_chunk_bytes: int = 256 * 1024
    """How much of a page is written to a connection at a time; a slow reader can hold this much
    beyond the page itself."""
    unsent_bytes: int = 64 * 1024 * 1024
    """Pages being sent, in total; beyond it new pages wait and stalled readers are aborted."""
    stall_seconds: float = 0.5
    """A client that reads nothing for so long may be aborted when others wait for its memory."""
    scrape_seconds: float = 10.0
    """How long a page may take where the scraper sends no timeout; Prometheus's default."""
    longest_scrape_seconds: float = 60.0
    render_share: float = 0.25
    """The largest share of time that the server spends rendering under a flood of requests.
    Requests that arrive meanwhile wait and share the next page."""
    longest_render_pause_seconds: float = 0.25
    workers: int = 4
    renders_at_once: int = 2
    close_seconds: float = 1.0
    retry_seconds: float = 5.0
    """Between two attempts to listen on a port in use."""
