"""All open connections: their phases, and which of them makes room when the house is full."""

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
    """The last answer is sent; the client is to close, and what it still sends is dropped."""


BUSY = frozenset({Phase.HANDLING, Phase.WRITING})


class Client(Protocol):
    """A connection as the registry sees it."""

    @property
    def phase(self) -> Phase:
        """What it is doing."""

    @property
    def progressed(self) -> float:
        """When bytes last moved, in the loop's time."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""

    def abort(self) -> None:
        """Cut the connection at once, dropping what has not gone out."""


class Clients:
    """The registry. Idle connections make room first, the longest idle before all."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: set[Client] = set()

    def admit(self, client: Client, limit: int) -> None:
        """Register a connection, cutting others where there are ``limit`` already."""
        while self._clients and len(self._clients) >= limit:
            self.evict()
        self._clients.add(client)

    def drop(self, client: Client) -> None:
        """Forget a connection that has ended."""
        self._clients.discard(client)

    def evict(self) -> None:
        """Cut the connection that is least in use."""
        if not self._clients:
            return
        victim = min(self._clients, key=lambda client: (client.phase in BUSY, client.progressed))
        self._clients.discard(victim)
        victim.abort()

    def cut_stalled(self, seconds: float) -> None:
        """Cut the readers that have taken nothing for so long."""
        before = self._loop.time() - seconds
        for client in list(self._clients):
            if client.phase is Phase.WRITING and client.progressed < before:
                client.abort()

    def busy(self) -> bool:
        """Whether an answer is under way on any connection."""
        return any(client.busy for client in self._clients)

    def abort(self, *, busy: bool) -> None:
        """Cut all connections, those at work only where ``busy``."""
        for client in list(self._clients):
            if busy or not client.busy:
                client.abort()
