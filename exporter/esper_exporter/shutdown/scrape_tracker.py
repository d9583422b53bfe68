"""Whether what happened last was seen by whoever scrapes.

A process that latches and dies at once is invisible to a server that pulls. So the page stays
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
        self._serious_at: float | None = None
        self._after = 0
        self.scrapes = 0

    def serious(self) -> None:
        """Something happened that must be seen: a latch, a failure. It is on the page by now."""
        with self._changed:
            self._serious_at = self._clock()
            self._after = 0

    def scraped(self, asked_at: float) -> None:
        """A page was delivered that was asked for at that moment of the clock. One that was asked
        for before the serious thing happened may not show it, and does not count."""
        with self._changed:
            self.scrapes += 1
            if self._serious_at is not None and asked_at >= self._serious_at:
                self._after += 1
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Begin with a lock that nobody holds: its holder may not be in the child."""
        self._changed = threading.Condition()

    def _pending(self) -> bool:
        return self._serious_at is not None and self._after < SCRAPES_TO_BE_SEEN

    @property
    def pending(self) -> bool:
        """Whether something serious has not been seen twice."""
        with self._changed:
            return self._pending()

    def linger(self, seconds: float, ends_at_once: str | None = None) -> bool:
        """Wait until everything serious was seen, at most so long; whether it was.
        ``ends_at_once`` is for the log: what a person may do to end the wait."""
        end = self._clock() + seconds
        with self._changed:
            if not self._pending():
                return True
            logger.warning(
                "staying up to %.0f s for two scrapes to fetch how the run ended%s",
                seconds,
                f" ({ends_at_once} ends at once)" if ends_at_once else "",
            )
            while self._pending():
                left = end - self._clock()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True
