"""Every bound of the server, in one table: what a client may cost, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    connections: int = 512
    """Open connections; beyond it the one that has waited longest makes room for the new one."""
    tls_connections: int = 128
    """The same with TLS, where asyncio gives each connection a buffer of 256 KiB at once: 500
    half-open handshakes took a measured 154 MB."""
    descriptor_share: float = 0.25
    """The part of the process' file descriptor limit that connections may take: the descriptors
    belong to the training, which must not run out of them."""
    handshake_seconds: float = 5.0
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    idle_seconds: float = 75.0
    """Between two requests on one connection."""
    write_seconds: float = 30.0
    """For one response to be taken by the client."""
    linger_seconds: float = 1.0
    """For the client to close after the last answer; what it still sends is dropped."""
    head_bytes: int = 16 * 1024
    body_chunk_bytes: int = 256 * 1024
    """How much of a page is handed to a connection at a time; what a slow reader can pin beyond
    the page itself."""
    unsent_bytes: int = 64 * 1024 * 1024
    """Pages on their way out, together; beyond it new pages wait and stalled readers are cut."""
    stall_seconds: float = 0.5
    """A reader that takes nothing for so long may be cut when others wait for its memory."""
    scrape_seconds: float = 10.0
    """How long a page may take when the scraper does not say; Prometheus' default."""
    longest_scrape_seconds: float = 60.0
    render_share: float = 0.25
    """The largest part of the time that a flood of requests can make the server spend rendering.
    Requests that come meanwhile wait and share the next page."""
    longest_render_pause_seconds: float = 0.25
    workers: int = 4
    renders_at_once: int = 2
    close_seconds: float = 1.0
    retry_seconds: float = 5.0
    """Between two attempts to listen on a taken port."""
