"""All open connections: their phases, and which one to close at the connection limit."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Protocol


class Phase(Enum):
    """What a connection is doing."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    IDLE = "idle"
    HANDLING = "handling"
    WRITING = "writing"
    CLOSING = "closing"
    """The last answer is sent; the client should close, and further input is dropped."""


BUSY = frozenset({Phase.HANDLING, Phase.WRITING})


class Client(Protocol):
    """A connection as the registry sees it."""

    @property
    def phase(self) -> Phase:
        """What it is doing."""

    @property
    def progressed(self) -> float:
        """When bytes last moved, by the loop's clock."""

    @property
    def busy(self) -> bool:
        """Whether an answer is being made or sent."""

    def abort(self) -> None:
        """Cut the connection at once, dropping what has not gone out."""


class Clients:
    """The registry. At the limit it aborts idle connections first, longest idle first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: set[Client] = set()

    def admit(self, client: Client, limit: int) -> None:
        """Register a connection; at ``limit`` connections, abort others to make room."""
        while self._clients and len(self._clients) >= limit:
            self.evict()
        self._clients.add(client)

    def drop(self, client: Client) -> None:
        """Remove a connection that has ended."""
        self._clients.discard(client)

    def evict(self) -> None:
        """Abort the least active connection."""
        if not self._clients:
            return
        victim = min(self._clients, key=lambda client: (client.phase in BUSY, client.progressed))
        self._clients.discard(victim)
        victim.abort()

    def cut_stalled(self, seconds: float) -> None:
        """Abort the connections that have read nothing for this many seconds."""
        before = self._loop.time() - seconds
        for client in list(self._clients):
            if client.phase is Phase.WRITING and client.progressed < before:
                client.abort()

    def busy(self) -> bool:
        """Whether any connection has an answer in progress."""
        return any(client.busy for client in self._clients)

    def abort(self, *, busy: bool) -> None:
        """Abort all connections; those with an answer in progress only where ``busy`` is True."""
        for client in list(self._clients):
            if busy or not client.busy:
                client.abort()
