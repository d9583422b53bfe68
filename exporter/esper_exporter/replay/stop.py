"""A request to stop that every wait sees at once, and that a signal handler may make."""

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
    """Lets time pass until it is over or somebody asks to stop."""

    @property
    def stopping(self) -> bool:
        """Whether somebody asked to stop."""

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        """Wait, and say whether to stop; ``readable`` ends it early when that file has data."""


class Stop:
    """A Waiter whose waits a signal ends.

    A pipe and not a threading.Event: an Event's lock is not reentrant, so a signal that arrives
    in the wrong moment of a wait would lock the process up for good.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._requested = False

    @property
    def stopping(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested

    def request(self) -> None:
        """Ask to stop; from any thread or signal handler, any number of times."""
        if not self._requested:
            self._requested = True
            os.write(self._write, b"x")

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        """Wait at most ``seconds`` (None: for ever), and say whether to stop.

        ``readable`` is a file descriptor: when it has something to read, or has ended, the wait
        is over. A regular file always has.
        """
        if seconds is not None:
            # poll() takes no more milliseconds than fit an int; the caller looks again anyway.
            seconds = min(max(seconds, 0.0), _LONGEST_WAIT)
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if readable is not None:
            poll.register(readable, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)
        return self._requested

    def catch(self, numbers: Iterable[int]) -> Callable[[], None]:
        """Let these signals request a stop, and return what undoes that; main thread only.

        The second one is not caught: it ends the process in the system's own way.
        """
        caught = tuple(numbers)

        def request(number: int, frame: FrameType | None) -> None:
            for each in caught:
                signal.signal(each, signal.SIG_DFL)
            self.request()

        before = {number: signal.signal(number, request) for number in caught}
        # The system may give a signal to another thread, or just before a wait begins. Either
        # way Python calls the handler only when the main thread comes out of its wait, and that
        # is what a byte in the pipe brings about.
        woken_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

        def undo() -> None:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)

        return undo

    def close(self) -> None:
        """Give the pipe back."""
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
