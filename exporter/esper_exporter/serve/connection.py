"""One client's connection: HTTP/1.1 by h11, within limits of time and memory.

h11 turns bytes into events and back; asyncio's transports do the input and output. Each request
gets a task; between two requests a connection is only a transport and this object.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, cast

import h11

from esper_exporter.serve.clients import BUSY, Phase
from esper_exporter.serve.delivery import Delivery, Follow
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.messages import Answer, Fields, Request, plain, request_of
from esper_exporter.serve.switch_interval import SwitchInterval

WAITED_FOR = frozenset({Phase.HANDSHAKE, Phase.HEAD})
QUIET = frozenset({Phase.IDLE, Phase.CLOSING})
_NUMBERS = itertools.count(1)
_WITHOUT_BODY = frozenset({204, 304})


class Application(Protocol):
    """Answers requests. Nothing here raises."""

    async def answer(self, request: Request) -> Answer:
        """The answer to a request."""

    def fields(self, answer: Answer) -> Fields:
        """The header fields of an answer, without the connection's."""

    def sending(self, body: bytes) -> Any:
        """A context manager, held while a body is being sent."""

    def follow(self, request: Request, answer: Answer) -> Follow | None:
        """How to follow the answer's delivery; None to skip that."""


@dataclass(frozen=True, slots=True)
class Server:
    """What all connections of a server share."""

    app: Application
    loop: asyncio.AbstractEventLoop
    limits: Limits
    switch_interval: SwitchInterval
    admits: Callable[[dict[str, Any] | None], bool]
    """Whether a client with this verified certificate may connect."""
    ended: Callable[[HttpConnection], None]
    """Called once when a connection is over."""
    failed: Callable[[Exception], None]
    """Called with an internal error; the connection is then aborted."""


class HttpConnection(asyncio.Protocol):
    """A connection from its acceptance to its end; all on the event loop's thread."""

    def __init__(self, server: Server, sock: socket.socket, address: str) -> None:
        self._server = server
        self._loop = server.loop
        self._limits = server.limits
        self.sock = sock
        self.address = address
        self._number = next(_NUMBERS)
        self.phase = Phase.HANDSHAKE
        self.progressed = self._loop.time()
        self.task: asyncio.Task[None] | None = None
        """The task of the handshake, then of the request in progress."""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self._transport: asyncio.Transport | None = None
        self._local_address = ""
        self._delivery: Delivery | None = None
        self._writable: asyncio.Future[None] | None = None
        """Resolved when the transport has written its bytes."""
        self._timer: asyncio.TimerHandle | None = None
        self._active = False
        self._paused = False
        self._half_closed = False
        self.lost = False
        """Whether the connection was aborted or reset."""
        self._over = False

    # -- the transport's side ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("sockname")
        self._local_address = str(name[0]) if isinstance(name, tuple) else "unix"
        # With the low-water mark near 0, waiting for a write means that the kernel has all of it.
        # 1, not 0: asyncio's TLS transport, once paused, never resumes with a limit of 0.
        transport.set_write_buffer_limits(high=1, low=0)
        if self.lost or not self._server.admits(transport.get_extra_info("peercert")):
            self.abort()
            return
        self.enter(Phase.HEAD, self._limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self._confirm_delivery()
            self.enter(Phase.HEAD, self._limits.head_seconds)
        step = self._limits.head_bytes
        for start in range(0, len(data), step):
            if self.phase is Phase.CLOSING or self.lost:
                return
            self._http.receive_data(data[start : start + step])
            if self.phase in BUSY:
                self._drop_body()
            else:
                self._next()
        if self.phase in BUSY and len(self._http.trailing_data[0]) > step:
            self._pause_reading()

    def eof_received(self) -> bool:
        """Whether to keep the writing side open: asyncio's TLS cannot."""
        self._half_closed = True
        if self.phase not in BUSY:
            self._confirm_delivery()
        if self.phase is Phase.CLOSING or self.lost:
            return False
        self._http.receive_data(b"")
        if self.phase not in BUSY:
            self._next()
        return self.phase in BUSY and self._can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._resume_writer()
        if self._delivery is not None:
            (self._delivery.ended if exc is None else self._delivery.lost)()
        if self.task is not None:
            self.task.cancel()
        self.end()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        self._resume_writer()

    def _resume_writer(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # -- the server's side -------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an answer is in progress, or its last byte not yet acknowledged."""
        return self.phase in BUSY or (self._delivery is not None and self._delivery.under_way)

    def enter(self, phase: Phase, seconds: float | None) -> None:
        """Enter a phase; abort the connection when the phase exceeds ``seconds``.

        Bytes of an incomplete request head do not count as progress: they cost a client nothing.
        """
        self.phase = phase
        self._set_active(phase not in QUIET)
        if phase not in WAITED_FOR:
            self.progressed = self._loop.time()
        self._disarm()
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self.abort)

    def abort(self) -> None:
        """Cut the connection at once, dropping what has not gone out."""
        if self.lost:
            return
        self.lost = True
        self._disarm()
        if self._delivery is not None:
            self._delivery.ended()
        if self._transport is not None:
            self._transport.abort()
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Mark the connection as ended; idempotent."""
        if self._over:
            return
        self._over = True
        self._disarm()
        self._set_active(False)
        self._server.ended(self)

    def _set_active(self, active: bool) -> None:
        if active is not self._active:
            self._active = active
            interval = self._server.switch_interval
            (interval.begin if active else interval.end)()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _confirm_delivery(self) -> None:
        if self._delivery is not None:
            self._delivery.confirmed()
            self._delivery = None

    # -- requests ----------------------------------------------------------------------------

    def _next(self) -> None:
        """Start on the next request if it has been received completely."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._begin(partial(self._refuse, error.error_status_hint))
            return
        if isinstance(event, h11.Request):
            self._drop_body()
            request = request_of(event, self.address, self._local_address, self._number)
            self._begin(partial(self._respond, request))
        elif isinstance(event, h11.ConnectionClosed):
            self._close()

    def _begin(self, work: Callable[[], Any]) -> None:
        self.enter(Phase.HANDLING, None)
        self.task = self._loop.create_task(self._run(work))

    async def _run(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            # abort() cancels. If the task kept the exception, its frames would form a reference
            # cycle around the connection's buffers, and a flood would fill memory faster than
            # garbage collection frees it.
            if not self.lost:
                raise
            return
        except h11.ProtocolError:  # a malformed body, found while answering
            self.abort()
            return
        except Exception as error:
            self._server.failed(error)
            self.abort()
            return
        finally:
            self.task = None
        if not self.lost:
            self._go_on()

    def _go_on(self) -> None:
        """After an answer: handle the next request, or close."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._close()
            return
        self._http.start_next_cycle()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if self._http.trailing_data[0]:
            self.enter(Phase.HEAD, self._limits.head_seconds)
        else:
            self.enter(Phase.IDLE, self._limits.idle_seconds)
        if self._http.trailing_data[0] or self._half_closed:
            self._next()

    def _drop_body(self) -> None:
        """Discard the received part of a request's body."""
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                return  # answer it all the same, then close the connection
            if event is h11.NEED_DATA:
                return

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _close(self) -> None:
        """Close gracefully: a client that is still sending must not lose its answer to a reset."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.enter(Phase.CLOSING, self._limits.linger_seconds)
        if self._half_closed or not self._can_write_eof():
            transport.close()
            return
        transport.write_eof()
        if self._paused:
            self._paused = False
            transport.resume_reading()

    def _can_write_eof(self) -> bool:
        return self._transport is not None and self._transport.can_write_eof()

    # -- answers -----------------------------------------------------------------------------

    async def _refuse(self, status: int) -> None:
        """Answer malformed input with an error, then close."""
        if self._http.our_state is h11.IDLE:
            answer = plain(status, "This is not a valid HTTP request.")
            fields = self._server.app.fields(answer)
            await self._send(answer, fields, self._limits.write_seconds, close=True)

    async def _respond(self, request: Request) -> None:
        app = self._server.app
        answer = await app.answer(request)
        follow = app.follow(request, answer)
        seconds = self._limits.write_seconds
        if follow is not None and follow.to_the_end:  # a scraper that gave up reads no more
            seconds = min(seconds, max(0.0, follow.deadline - self._loop.time()))
        sent = False
        try:
            with app.sending(answer.body):
                sent = await self._send(
                    answer, app.fields(answer), seconds, head=request.method == "HEAD"
                )
        finally:
            if follow is not None:
                self._follow(follow, sent)
        closes_as_a_whole = not self._can_write_eof() and self._http.our_state is not h11.DONE
        if closes_as_a_whole and self._delivery is not None:
            await self._delivery.acknowledged(self._limits.linger_seconds)

    def _follow(self, follow: Follow, sent: bool) -> None:
        if self._delivery is not None:
            self._delivery.ended()  # the client pipelines without reading its answers
            self._delivery = None
        report = partial(follow.report, time.monotonic())
        if not sent:
            report(False)
            return
        self._delivery = Delivery(self.sock, self._loop, follow.deadline, follow.to_the_end, report)

    async def _send(
        self,
        answer: Answer,
        fields: Fields,
        seconds: float,
        *,
        head: bool = False,
        close: bool = False,
    ) -> bool:
        """Send an answer within ``seconds``; return whether the socket took all of it.

        ``head`` omits the body. ``close`` marks the connection's last answer.
        """
        http = self._http
        has_body = answer.status not in _WITHOUT_BODY
        headers = [*fields, (b"date", _date())]
        if has_body:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        if close or http.their_state in (h11.SEND_BODY, h11.ERROR):
            headers.append((b"connection", b"close"))
        reason = HTTPStatus(answer.status).phrase.encode()
        start = http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))
        self.enter(Phase.WRITING, seconds)
        for part in self._parts(start or b"", answer.body if has_body and not head else b""):
            if not await self._write(part):
                return False
        http.send(h11.EndOfMessage())
        return True

    def _parts(self, start: bytes, body: bytes) -> Iterator[bytes]:
        """The head with the body's first part (most answers fit one packet), then the rest."""
        step = self._limits.body_chunk_bytes
        view = memoryview(body)
        for place in range(0, max(1, len(body)), step):
            # h11 passes data through unchanged and counts it.
            data = h11.Data(data=cast(bytes, view[place : place + step]))
            parts = self._http.send_with_data_passthrough(data) or []
            yield b"".join([start, *parts] if place == 0 else parts)

    async def _write(self, part: bytes) -> bool:
        """Write bytes and wait until the socket has them; False on a lost connection."""
        transport = self._transport
        if self.lost or transport is None or transport.is_closing():
            return False
        transport.write(part)
        if self._writable is not None:
            await self._writable
        if self.lost or transport.is_closing():
            return False
        self.progressed = self._loop.time()
        return True


def _date() -> bytes:
    return formatdate(usegmt=True).encode()
