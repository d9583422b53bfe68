"""One client's connection: what it may cost, and Hypercorn's HTTP/1.1 on top of it.

Hypercorn bounds neither the time that headers or a slow reader may take, nor the number of
connections; it does HTTP/2 whenever a client asks for it. The subclasses here change only that.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum

import h11
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from esper_exporter.serve.limits import Limits
from esper_exporter.serve.switch_interval import Turns

STATE_KEY = "esper_exporter.client"
"""Where a request finds its Client in the ASGI scope's ``state``."""


class Phase(Enum):
    """What a connection is doing."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    IDLE = "idle"
    HANDLING = "handling"
    WRITING = "writing"


WAITED_FOR = frozenset({Phase.HANDSHAKE, Phase.HEAD})
BUSY = frozenset({Phase.HANDLING, Phase.WRITING})


class Client:
    """An accepted connection: its phase, when it last moved, and how to end it."""

    __slots__ = (
        "_active", "_loop", "_timer", "_turns", "address", "lost", "phase", "progressed", "sock",
        "task", "transport",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, address: str, loop: asyncio.AbstractEventLoop, turns: Turns
    ) -> None:
        self._loop = loop
        self._turns = turns
        self._active = False
        self._timer: asyncio.TimerHandle | None = None
        self.sock = sock
        self.address = address
        self.phase = Phase.HANDSHAKE
        self.progressed = loop.time()
        self.lost = False
        """Whether the connection ended before what was written to it had gone out."""
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    def enter(self, phase: Phase, seconds: float | None) -> None:
        """Go over to a phase that may last so long; the connection is cut when it lasts longer.

        Bytes of a head that is not complete are no progress: they cost a client nothing.
        """
        self.phase = phase
        self._set_active(phase is not Phase.IDLE)
        if phase not in WAITED_FOR:
            self.progress()
        self.disarm()
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self.abort)

    def _set_active(self, active: bool) -> None:
        if active is not self._active:
            self._active = active
            (self._turns.begin if active else self._turns.end)()

    def end(self) -> None:
        """The connection is over."""
        self.disarm()
        self._set_active(False)

    def progress(self) -> None:
        self.progressed = self._loop.time()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Cut the connection at once, dropping what has not gone out."""
        self.disarm()
        self.lost = True
        if self.transport is not None:
            self.transport.abort()
        if self.task is not None:
            self.task.cancel()


class Clients:
    """All open connections. A full house makes room: idle ones go first, the longest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: set[Client] = set()

    def admit(self, client: Client, limit: int) -> None:
        while self._clients and len(self._clients) >= limit:
            self.evict()
        self._clients.add(client)

    def drop(self, client: Client) -> None:
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

    def tasks(self, *, busy: bool | None = None) -> set[asyncio.Task[None]]:
        """The tasks of all connections, or of those that are (not) answering a request."""
        return {
            client.task
            for client in self._clients
            if client.task is not None and (busy is None or (client.phase in BUSY) is busy)
        }

    def abort(self, *, busy: bool) -> None:
        for client in list(self._clients):
            if busy or client.phase not in BUSY:
                client.abort()


class Http11(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1: an offer to upgrade to HTTP/2 is ignored, as RFC 9110 §7.8
    allows, where Hypercorn would take it."""

    async def _check_protocol(self, event: h11.Request) -> None:
        return


class HttpConnection(TCPServer):
    """Hypercorn's connection with our bounds in place of its idle task."""

    def __init__(
        self,
        app: AppWrapper,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        context: WorkerContext,
        client: Client,
        limits: Limits,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(app, loop, config, context, {STATE_KEY: client}, reader, writer)
        self._client = client
        self._limits = limits
        self._reading: asyncio.Task[None] | None = None
        self._ended = False

    async def run(self) -> None:
        family = self._client.sock.family
        ssl = self.writer.get_extra_info("ssl_object") is not None
        try:
            client = parse_socket_addr(family, self._client.sock.getpeername())
            server = parse_socket_addr(family, self._client.sock.getsockname())
            async with TaskGroup(self.loop) as task_group:
                self._task_group = task_group
                arguments = (
                    self.app, self.config, self.context, task_group,
                    ConnectionState(self.state), ssl, client, server, self.protocol_send,
                )  # fmt: skip
                self.protocol = ProtocolWrapper(*arguments)
                self.protocol.protocol = Http11(*arguments)
                await self._read_data()
        except OSError:
            self._client.lost = True
        finally:
            await self._close()

    async def _read_data(self) -> None:
        self._reading = asyncio.current_task()
        try:
            while not self.reader.at_eof():
                try:
                    data = await self.reader.read(self._limits.head_bytes)
                except OSError:
                    break
                if data and self._client.phase is Phase.IDLE:
                    self._client.enter(Phase.HEAD, self._limits.head_seconds)
                await self.protocol.handle(RawData(data))
            await self.protocol.handle(Closed())
        except asyncio.CancelledError:
            # Our own _close() wakes us from waiting for room for a body that nobody reads.
            if not self._ended or self._reading is None:
                raise
            self._reading.uncancel()
        finally:
            self._reading = None

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data:
                await self._write(event.data)
        elif isinstance(event, Closed):
            await self._close()
        elif isinstance(event, Updated):
            if event.idle:
                self._client.enter(Phase.IDLE, self._limits.idle_seconds)
            else:
                self._client.enter(Phase.HANDLING, None)

    async def _write(self, data: bytes) -> None:
        if self._client.phase is Phase.HANDLING:
            self._client.enter(Phase.WRITING, self._limits.write_seconds)
        async with self.send_lock:
            try:
                self.writer.write(data)
                await self.writer.drain()
            except (ConnectionError, RuntimeError):
                self._client.lost = True
                await self.protocol.handle(Closed())
            else:
                self._client.progress()

    async def _close(self) -> None:
        await super()._close()
        self._ended = True
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
