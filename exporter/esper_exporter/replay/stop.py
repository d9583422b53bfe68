"""Stop requests that end every wait at once, also from a signal handler."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

_LONGEST_WAIT = 3600.0


class Waiter(Protocol):
    """Waits until a time is over or a stop request arrives."""

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        """Wait, and return whether to stop; data on ``readable`` ends the wait early."""


class Stop:
    """A Waiter whose waits end at a signal.

    It uses a pipe, not a threading.Event: an Event's lock is not reentrant, so a signal that
    arrives at the wrong moment of a wait would deadlock the process.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._requested = False

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._requested

    def request(self) -> None:
        """Request a stop; from any thread or signal handler, idempotent."""
        if not self._requested:
            self._requested = True
            os.write(self._write, b"x")

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        """Wait at most ``seconds`` (None: no limit), and return whether to stop.

        ``readable`` is a file descriptor: the wait ends when it has data or has ended. A regular
        file always has data.
        """
        if seconds is not None:
            # poll() accepts at most an int of milliseconds; the caller checks again anyway.
            seconds = min(max(seconds, 0.0), _LONGEST_WAIT)
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if readable is not None:
            poll.register(readable, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)
        return self._requested

    def catch(self, numbers: Iterable[int]) -> Callable[[], None]:
        """Make these signals request a stop; return a function that undoes that. Main thread only.

        A second signal is not caught: it ends the process with the default action.
        """
        caught = tuple(numbers)

        def request(number: int, frame: FrameType | None) -> None:
            for each in caught:
                signal.signal(each, signal.SIG_DFL)
            self.request()

        before = {number: signal.signal(number, request) for number in caught}
        # The system may deliver a signal to another thread, or just before a wait begins. Either
        # way Python calls the handler only after the main thread's wait, which a byte in the
        # pipe ends.
        woken_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

        def undo() -> None:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)

        return undo

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM request; must be entered on the main thread."""
    stop = Stop()
    undo = stop.catch((signal.SIGINT, signal.SIGTERM))
    try:
        yield stop
    finally:
        undo()
        stop.close()
