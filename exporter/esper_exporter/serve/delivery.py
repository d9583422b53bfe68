"""Whether a client received its page, by what the kernel knows about the written bytes.

A written page has not yet arrived: the scraper may have given up while the page was rendered, or
may close its socket without reading. Linux reports how many bytes the peer has not acknowledged,
and a close with unread bytes comes back as a reset. So `Delivery` follows each page:

- It arrived when the peer's kernel acknowledged the last byte within the scraper's timeout, and
  the client then sent its next request, closed gracefully, or let its timeout pass without
  closing.
- It did not arrive when the connection was reset, or the last byte was not acknowledged in time.

A client that sends no timeout is not a scraper: its page counts as arrived once the last byte is
acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass

_FIRST_LOOK_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05
_TCP = frozenset({socket.AF_INET, socket.AF_INET6})
_TCP_CLOSE = 7
"""Linux's TCP_CLOSE: reset, or closed gracefully by both sides."""


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged (unix sockets: that the peer has not read).

    Raises OSError for a closed socket.
    """
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def gone(sock: socket.socket) -> bool:
    """Whether a TCP connection is reset or closed by both sides; False where the system cannot
    report it. Raises OSError for a closed socket."""
    tcp_info = getattr(socket, "TCP_INFO", None)
    if sock.family not in _TCP or tcp_info is None:
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, tcp_info, 1)[0] == _TCP_CLOSE


@dataclass(frozen=True, slots=True)
class Follow:
    """Arguments of a `Delivery`."""

    deadline: float
    """By the loop's clock."""
    to_the_end: bool
    report: Callable[[float, bool], None]
    """Called once with the time (``time.monotonic()``) at which the last byte was written or the
    connection was lost, and with whether the answer arrived."""


class Delivery:
    """Follows one page; calls ``report`` once with whether it arrived.

    ``deadline`` is by the loop's clock. With ``to_the_end`` it follows the client until the
    deadline, or until the client shows that it has the page; without, until the last byte is
    acknowledged.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        deadline: float,
        to_the_end: bool,
        report: Callable[[bool], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._deadline = deadline
        self._to_the_end = to_the_end
        self._report = report
        self._pause = _FIRST_LOOK_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self.taken = False
        """Whether the peer's kernel acknowledged the last byte in time."""
        self.settled = False
        self._look()

    @property
    def under_way(self) -> bool:
        """Whether some bytes are not acknowledged yet."""
        return not (self.settled or self.taken)

    async def acknowledged(self, seconds: float) -> None:
        """Wait until the last byte is acknowledged, at most ``seconds``."""
        give_up = self._loop.time() + seconds
        while self.under_way and self._loop.time() < give_up:
            await asyncio.sleep(0.005)

    def confirmed(self) -> None:
        """The client sent more, or closed gracefully: it has read the answer."""
        self._look_at(unacknowledged)
        self._settle(self.taken)

    def lost(self) -> None:
        """The connection was reset."""
        self._settle(False)

    def ended(self) -> None:
        """This side closes the connection."""
        self._look_at(self._outstanding)
        self._settle(self.taken)

    def _outstanding(self, sock: socket.socket) -> bool:
        return gone(sock) or unacknowledged(sock) > 0

    def _look_at(self, outstanding: Callable[[socket.socket], object]) -> None:
        if not self.taken and self._loop.time() <= self._deadline:
            with contextlib.suppress(OSError):  # closed: keep the last known state
                self.taken = not outstanding(self._sock)

    def _look(self) -> None:
        self._timer = None
        self._look_at(self._outstanding)
        if self._loop.time() >= self._deadline or (self.taken and not self._to_the_end):
            self._settle(self.taken and not self._is_gone())
        elif self.taken:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._timer = self._loop.call_later(self._pause, self._look)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _is_gone(self) -> bool:
        try:
            return gone(self._sock)
        except OSError:
            return False

    def _settle(self, arrived: bool) -> None:
        if self.settled:
            return
        self.settled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._report(arrived)
