"""How an exporter ends: not before somebody has seen the fault that ended the run.

A process that latches and dies at once is invisible to a server that pulls. So the server stays
until two scrapes have fetched what happened last, or a limit passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("esper_exporter")

SCRAPES_TO_BE_SEEN = 2
"""Two, because two servers may scrape, and because one scrape may fail to be stored."""


class Seen:
    """Whether scrapes have fetched the last serious thing that happened. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._scrapes = 0
        self._serious_after: int | None = None

    def serious(self) -> None:
        """Something happened that must be seen: a latch, a failure."""
        with self._changed:
            self._serious_after = self._scrapes

    def scraped(self) -> None:
        """A page was delivered."""
        with self._changed:
            self._scrapes += 1
            self._changed.notify_all()

    def _pending(self) -> bool:
        return (
            self._serious_after is not None
            and self._scrapes - self._serious_after < SCRAPES_TO_BE_SEEN
        )

    @property
    def pending(self) -> bool:
        """Whether something serious has not been seen twice."""
        with self._changed:
            return self._pending()

    def linger(self, seconds: float) -> bool:
        """Wait until everything serious was seen, at most so long; whether it was."""
        end = self._clock() + seconds
        with self._changed:
            if not self._pending():
                return True
            logger.warning(
                "staying up to %.0f s for two scrapes: something serious was not scraped yet",
                seconds,
            )
            while self._pending():
                left = end - self._clock()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True
