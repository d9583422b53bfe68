"""The server's event loop: accept, serve, close.

Imported only when a server starts, because it imports asyncio, ssl and h11.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from esper_exporter.log_once import ErrorLog
from esper_exporter.serve.app import AccessControl, MetricsApp
from esper_exporter.serve.clients import Clients, Phase
from esper_exporter.serve.connection import HttpConnection, Server
from esper_exporter.serve.hosts import AllowedHosts
from esper_exporter.serve.interfaces import PageSource
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.listening import Address, Listener, ListenError
from esper_exporter.serve.rendering import Rendering, ResponseBudget
from esper_exporter.serve.switch_interval import SwitchInterval
from esper_exporter.serve.workers import Workers

LOG = logging.getLogger("esper_exporter.serve")

_ACCEPTS_AT_ONCE = 32
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Security(AccessControl, Protocol):
    """What a web configuration adds to a connection: TLS and access control."""

    def tls(self) -> Any:
        """The ``ssl.SSLContext`` for a new connection, None for plain HTTP."""

    def admits(self, peer_certificate: dict[str, Any] | None) -> bool:
        """Whether a client with this verified certificate may connect."""


def connection_limit(limits: Limits) -> int:
    """How many connections the process can afford; the training's descriptors come first."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(8, min(limits.connections, int(soft * limits.descriptor_share)))


class Runtime:
    """One event loop with its listening sockets and connections, on the server's thread.

    ``hosts`` are the host to listen on and the further names that requests may use. ``guard`` is
    held while a socket is accepted and registered, so that no fork comes between.
    """

    def __init__(
        self,
        source: PageSource,
        listeners: list[Listener],
        pending: dict[Address, ListenError],
        security: Callable[[Workers], Security] | None,
        limits: Limits,
        errors: ErrorLog,
        hosts: tuple[str, tuple[str, ...]],
        guard: contextlib.AbstractContextManager[object],
    ) -> None:
        self._source = source
        self.listeners = listeners
        self._pending = pending
        self._security_of = security
        self._limits = limits
        self._errors = errors
        self._hosts = hosts
        self._guard = guard
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._loop.set_exception_handler(self._quiet)
        self._open: set[socket.socket] = set()
        self._clients = Clients(self._loop)
        self._switch_interval = SwitchInterval()
        self._limit = connection_limit(limits)
        self._workers = Workers(limits.workers, "esper-exporter-worker")
        self._stop = asyncio.Event()
        self._stopping = False
        self.started = threading.Event()

    def run(self) -> None:
        """Serve until stop() is called, then close everything and return."""
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._errors.report("server", error)
        finally:
            self._close_listeners()
            self._workers.close(0.0)
            self._loop.close()
            self._switch_interval.restore()
            self.started.set()

    def stop(self) -> None:
        """Ask the loop to end; thread-safe and idempotent."""
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            return  # it has ended already

    def abandon(self) -> None:
        """In a forked child: drop every socket without sending anything to the parent's clients.

        The loop itself stays untouched: its thread does not exist here, and closing the loop
        would act on state that parent and child share.
        """
        for sock in [*(listener.sock for listener in self.listeners), *self._open]:
            fd = sock.detach()
            if fd >= 0:
                os.close(fd)
        self._selector.close()
        self._switch_interval.restore()

    async def _serve(self) -> None:
        budget = ResponseBudget(
            self._limits.unsent_bytes, lambda: self._clients.cut_stalled(self._limits.stall_seconds)
        )
        self._security = None if self._security_of is None else self._security_of(self._workers)
        rendering = Rendering(self._source, self._workers, self._limits)
        app = MetricsApp(
            self._source,
            rendering,
            self._workers,
            budget,
            self._limits,
            self._errors,
            self._security,
            AllowedHosts(*self._hosts, self._workers),
        )
        self._server = Server(
            app=app,
            loop=self._loop,
            limits=self._limits,
            switch_interval=self._switch_interval,
            admits=self._admits,
            ended=self._ended,
            failed=partial(self._errors.report, "connection"),
        )
        for listener in self.listeners:
            self._loop.add_reader(listener.sock, self._accept, listener.sock)
        retries = [
            asyncio.create_task(self._listen_later(address, error))
            for address, error in self._pending.items()
        ]
        self.started.set()
        await self._stop.wait()
        for task in retries:
            task.cancel()
        await self._shut_down()

    async def _listen_later(self, address: Address, error: ListenError) -> None:
        """Warn, then try again until the address is free."""
        error = await self._workers.submit(partial(address.explained, error))
        LOG.warning(
            "%s; metrics are not served there until it is free, trying again every %g s",
            error.strerror or error,
            self._limits.retry_seconds,
        )
        while True:
            await asyncio.sleep(self._limits.retry_seconds)
            try:
                place = await self._workers.submit(address.resolve)
                with self._guard:
                    listener = place.listen()
                    self.listeners.append(listener)
            except ListenError as again:
                LOG.debug("%s", again)
                continue
            self._loop.add_reader(listener.sock, self._accept, listener.sock)
            LOG.warning("now serving metrics on %s", address)
            return

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if self._stopping:
                return
            with self._guard:
                try:
                    sock, peer = listener.accept()
                except ConnectionAbortedError:
                    continue
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as raised:
                    error = raised
                    break
                self._open.add(sock)
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                # Headers and body are two writes: without this a scrape would wait 40 ms for the
                # client's delayed ACK. asyncio sets it only on sockets that name their protocol.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            address = str(peer[0]) if isinstance(peer, tuple) else "unix"
            connection = HttpConnection(self._server, sock, address)
            context = None if self._security is None else self._security.tls()
            tls_limit = self._limit if context is None else self._limits.tls_connections
            self._clients.admit(connection, min(self._limit, tls_limit))
            connection.task = self._loop.create_task(self._shake_hands(connection, context))
        else:
            return
        if error.errno not in _EXHAUSTED:
            self._errors.report("accept", error)
        self._pause_accepting(listener)

    def _pause_accepting(self, listener: socket.socket) -> None:
        """Out of descriptors: stop accepting briefly and leave the rest to the training."""
        self._clients.evict()
        self._loop.remove_reader(listener)

        def resume() -> None:
            if not self._stopping:
                self._loop.add_reader(listener, self._accept, listener)

        self._loop.call_later(0.25, resume)

    async def _shake_hands(self, connection: HttpConnection, context: Any) -> None:
        """Attach an accepted socket to its connection, after the handshake with TLS."""
        limits = self._limits
        try:
            connection.enter(Phase.HANDSHAKE, limits.handshake_seconds)
            await self._loop.connect_accepted_socket(
                lambda: connection,
                connection.sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else limits.handshake_seconds,
                ssl_shutdown_timeout=None if context is None else limits.linger_seconds,
            )
        except asyncio.CancelledError:
            # HttpConnection.abort() cancels; the task must not keep the exception.
            connection.end()
            if not connection.lost:
                raise
        except OSError as error:  # the handshake failed, or the client is gone
            LOG.debug("%s: %s", connection.address, error)
            error.__traceback__ = None  # break the reference cycle through the frames
            connection.end()
        except Exception as error:
            self._errors.report("connection", error)
            connection.end()
        finally:
            if connection.task is asyncio.current_task():
                connection.task = None

    def _admits(self, peer_certificate: dict[str, Any] | None) -> bool:
        return self._security is None or self._security.admits(peer_certificate)

    def _ended(self, connection: HttpConnection) -> None:
        self._clients.drop(connection)
        # The transport closes its socket in a callback, one step later.
        self._loop.call_soon(self._open.discard, connection.sock)

    async def _shut_down(self) -> None:
        """Stop accepting, let answers in progress finish, all within the closing timeout."""
        self._stopping = True
        self._close_listeners()
        self._clients.abort(busy=False)
        give_up = self._loop.time() + self._limits.close_seconds * 0.7
        while self._clients.busy() and self._loop.time() < give_up:
            await asyncio.sleep(0.005)
        self._clients.abort(busy=True)
        leftover = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in leftover:
            task.cancel()
        if leftover:
            await asyncio.wait(leftover, timeout=self._limits.close_seconds * 0.1)
        await asyncio.sleep(0)  # transports close their sockets in a callback
        self._workers.close(self._limits.close_seconds * 0.1)

    def _close_listeners(self) -> None:
        with self._guard:
            for listener in self.listeners:
                if not self._loop.is_closed():
                    self._loop.remove_reader(listener.sock)
                listener.close()
            self.listeners.clear()

    def _quiet(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Replace asyncio's error report: failed handshakes and lost clients are not errors."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            LOG.debug("%s", context.get("message"), exc_info=error)
        else:
            self._errors.report("connection", error)
