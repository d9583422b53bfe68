"""The end of an exporter's runs: noticed, shown on the page, kept until scrapers have seen it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from esper_exporter.shutdown.process import ends_at_once
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker
from esper_exporter.shutdown.seam_frames import hide_seams
from esper_exporter.state.failure_reason import Reason, reason_of


class Owner(Protocol):
    """What an ending asks of its exporter. All of it may be called on any thread."""

    def flush_hub(self) -> None:
        """Wait, for a bounded time, until the hub has delivered the events that it holds."""

    def mark_ended(self, reason: Reason | None, error: BaseException | None = None) -> bool:
        """End the active runs on the page, None for finished; whether any was active."""

    def last_end(self) -> float | None:
        """When the newest end of a run came onto the page (``time.monotonic()``), if one did."""

    def keep(self) -> None:
        """Write what must outlive the process."""

    def events_taken(self) -> int:
        """Events received so far."""

    def serving(self) -> bool:
        """Whether a scraper could fetch the page."""

    def leave(self) -> None:
        """Let the scrapers see that there is nothing to scrape any more."""

    def close(self) -> None:
        """End the exporter."""


class Ending:
    """Watches one exporter's process and keeps its page up until the end was seen.

    ``linger`` is the most seconds to stay for the scrapers, ``term_linger`` the most after a
    SIGTERM, counted from the signal: its sender sends SIGKILL after a grace period; ``push_linger``
    the most for pushing the last page, which ``push_end`` does. Where this process is not the run
    (``is_run``), only what was seen of the run is waited with.
    """

    def __init__(
        self,
        owner: Owner,
        tracker: ScrapeTracker,
        *,
        linger: float,
        term_linger: float,
        push_linger: float = 0.0,
        push_end: Callable[[float], None] = lambda _seconds: None,
        is_run: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = owner
        self._tracker = tracker
        self._linger = linger
        self._term_linger = min(linger, term_linger)
        self._push_linger = push_linger
        self._push_end = push_end
        self._is_run = is_run
        self._clock = clock
        self._told_to_end_at: float | None = None
        self._in_thread: tuple[BaseException, int] | None = None
        self._interrupted = False
        self._exiting = False

    # -- what the process reports --------------------------------------------------------------

    def uncaught(self, error: BaseException) -> None:
        """The main thread dies of an exception: the run has failed."""
        self._owner.flush_hub()
        self._end(reason_of(error), error)

    def uncaught_in_thread(self, error: BaseException) -> None:
        """A thread died. It was the training's if no event comes any more."""
        self._owner.flush_hub()  # what the thread emitted before it died is not what comes after
        self._in_thread = (error, self._owner.events_taken())

    def termination_requested(self) -> None:
        """SIGTERM came and the user's handler decides. Called within a signal handler, which may
        have interrupted the holder of a lock: nothing here waits for one."""
        self._told_to_end_at = self._clock()

    def terminate(self) -> None:
        """SIGTERM came and ends the process after this."""
        self._told_to_end_at = self._clock()
        self._owner.flush_hub()
        self._end(Reason.SIGNAL, None)
        self._wait()
        self._owner.leave()

    def exit(self) -> None:
        """The interpreter ends."""
        self._exiting = True
        self._owner.close()

    # -- what the exporter reports -------------------------------------------------------------

    def closing(self, error: BaseException | None) -> None:
        """The exporter is being closed, because of an exception or not: publish that, and wait."""
        if error is not None:
            hide_seams(error)  # here: who closes may take the hooks off before it is printed
        if self._is_run:
            self._owner.flush_hub()
            self._end(self._reason(error), error)
        self._wait()

    def _reason(self, error: BaseException | None) -> Reason | None:
        if self._told_to_end_at is not None:
            return Reason.SIGNAL
        if error is None and self._in_thread is not None:
            died_of, events = self._in_thread
            if self._owner.events_taken() == events:
                return reason_of(died_of)
        return reason_of(error)

    def _end(self, reason: Reason | None, error: BaseException | None) -> None:
        self._interrupted = self._interrupted or isinstance(error, KeyboardInterrupt)
        news = self._owner.mark_ended(reason, error)
        # A run whose batches were done ended before its process does, perhaps just now.
        since = None if news else self._owner.last_end()
        if not news and since is None:
            return
        # Without a scraper there is nothing to wait for after a good end or a Ctrl-C.
        failed = news and reason is not None and not self._interrupted
        if failed or self._tracker.scraped_regularly:
            self._tracker.serious(since)
        self._owner.keep()

    def _left(self, seconds: float, after_sigterm: float) -> float:
        """``seconds``, but ``after_sigterm`` less what has passed since a SIGTERM where one came:
        its sender may send SIGKILL then."""
        if self._told_to_end_at is None:
            return seconds
        return max(0.0, self._told_to_end_at + after_sigterm - self._clock())

    def _wait(self) -> None:
        try:
            if self._linger > 0 and self._owner.serving():
                seconds = self._left(self._linger, self._term_linger)
                self._tracker.linger(seconds, ends_at_once())
            push = self._push_linger
            self._push_end(min(push, self._left(push, max(self._term_linger, push))))
        except KeyboardInterrupt:
            # Ctrl-C again: enough. Once the interpreter ends nothing could catch it.
            if not self._exiting:
                raise
