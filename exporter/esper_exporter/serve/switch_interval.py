"""The interpreter's switch interval, shortened while a client waits for an answer.

Whenever the server's thread has waited for the network it must get the interpreter back, and a
training loop in pure Python gives it up only every switch interval, 5 ms by default. An answer
waits for it a few dozen times. So the interval is shortened while a client is being served, and
only then: the work is the same, cut into finer slices, and the training too gets the interpreter
back sooner.
"""

from __future__ import annotations

import sys

SHORT_SECONDS = 0.0005


class SwitchInterval:
    """Shortens the switch interval while anything is going on. Used by the server's thread."""

    def __init__(self) -> None:
        self._active = 0
        self._before: float | None = None

    def begin(self) -> None:
        """One more client is being served."""
        self._active += 1
        if self._active == 1 and (now := sys.getswitchinterval()) > SHORT_SECONDS:
            self._before = now
            sys.setswitchinterval(SHORT_SECONDS)

    def end(self) -> None:
        """One client less. A value that other code has set meanwhile stays."""
        self._active -= 1
        if self._active == 0:
            self.restore()

    def restore(self) -> None:
        """Set it back: no client is served any more, or not in this process."""
        if self._before is not None:
            if abs(sys.getswitchinterval() - SHORT_SECONDS) < 1e-6:
                sys.setswitchinterval(self._before)
            self._before = None
