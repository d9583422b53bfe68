"""One rank's training steps: how long its own part takes, and values that all ranks must share.

In data-parallel training every rank waits for the slowest in the collective, so that after it all
look equally slow. A step is therefore reported when the rank's own part is done and before it
waits: the rank that the others wait for is the one whose newest step is older than theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CHECK_SECONDS = 15.0
"""Values are compared at steps about this far apart: a scrape must find all ranks at the same."""


@dataclass(slots=True)
class RankSteps:
    """The steps that a rank has reported.

    ``step`` is the index of the newest step, ``reported_at`` its Unix time in seconds, ``seconds``
    its duration without waiting for others. ``checked_*`` are values that must be the same on every
    rank (a loss or a gradient norm after the all-reduce), of the newest step whose index is a
    multiple of a power of two that takes about `CHECK_SECONDS`: all ranks choose the same steps
    without talking to each other.
    """

    step: int = 0
    reported_at: float = 0.0
    seconds: float | None = None
    checked_step: int | None = None
    checked_loss: float | None = None
    checked_gradient_norm: float | None = None
    _first_step: int | None = None
    _first_at: float = 0.0

    def report(self, step: int, seconds: float | None, now: float) -> None:
        """The rank's own part of a step is done."""
        if self._first_step is None or step < self.step:
            self._first_step, self._first_at = step, now
        self.step, self.reported_at = step, now
        if seconds is not None:
            self.seconds = seconds

    def check(self, step: int, loss: float | None, gradient_norm: float | None) -> None:
        """Values of a step that must be the same on every rank."""
        if step % self._stride() == 0:
            self.checked_step = step
            self.checked_loss, self.checked_gradient_norm = loss, gradient_norm

    def _stride(self) -> int:
        steps = self.step - (self._first_step or 0)
        elapsed = self.reported_at - self._first_at
        if steps <= 0 or elapsed <= 0:
            return 1
        return 1 << max(0, math.ceil(math.log2(CHECK_SECONDS * steps / elapsed)))
