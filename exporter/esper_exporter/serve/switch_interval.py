"""Shorten the interpreter's switch interval while a client waits for an answer.

After each wait for the network, the server's thread needs the interpreter lock, which a training
loop in pure Python releases only every switch interval, 5 ms by default. An answer needs it a few
dozen times, so the server shortens the interval while it serves a client, and only then: the work
is the same in finer slices, and the training gets the lock back sooner too.
"""

from __future__ import annotations

import sys

SHORT_SECONDS = 0.0005


class SwitchInterval:
    """Shortens the switch interval while the server has clients. For the server's thread."""

    def __init__(self) -> None:
        self._active = 0
        self._before: float | None = None

    def begin(self) -> None:
        """A client's request begins."""
        self._active += 1
        if self._active == 1 and (now := sys.getswitchinterval()) > SHORT_SECONDS:
            self._before = now
            sys.setswitchinterval(SHORT_SECONDS)

    def end(self) -> None:
        """A client's request ends. A value that other code has set meanwhile stays."""
        self._active -= 1
        if self._active == 0:
            self.restore()

    def restore(self) -> None:
        """Restore the interval: no client is left, or not in this process."""
        if self._before is not None:
            if abs(sys.getswitchinterval() - SHORT_SECONDS) < 1e-6:
                sys.setswitchinterval(self._before)
            self._before = None
