"""Who scrapes this process, how often, and whether each of them has seen what happened last.

A process that latches and dies at once is invisible to a server that pulls. So the page stays
until every scraper that comes regularly has fetched what happened last, or a limit passes. A
person with a browser or curl is not waited for, and does not stand in for a scraper.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median

from esper_exporter.serve.interfaces import Served, Visit
from esper_exporter.shutdown.scrapers import Scraper, Scrapers

logger = logging.getLogger("esper_exporter")

PAGES_OF_STRANGERS = 2
"""Pages that must have been fetched where no scraper comes regularly."""

OLDER_PAGES = 256
"""Pages remembered that did not show the newest state."""


class ScrapeTracker:
    """Whether scrapers have fetched the last serious thing that happened. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._scrapers = Scrapers()
        self._serious_at: float | None = None
        self._delivered_at: float | None = None
        self._older: deque[tuple[float, float]] = deque(maxlen=OLDER_PAGES)

    def serious(self, moment: float | None = None) -> None:
        """Something happened that must be seen: a latch, a failure. It is on the page by now, or
        since a given time of the clock."""
        with self._changed:
            at = self._clock() if moment is None else moment
            self._serious_at = at if self._serious_at is None else max(self._serious_at, at)

    def visited(self, visit: Visit) -> None:
        """A client asked for a page."""
        with self._changed:
            self._scrapers.visit(visit)
            self._changed.notify_all()

    def served(self, page: Served) -> None:
        """What became of a page that a client asked for. One that was asked for before the serious
        thing happened may not show it, and one that did not arrive was not seen."""
        with self._changed:
            scraper = self._scrapers.visit(page)
            if scraper is not None and page.complete:
                scraper.pages.append(self._shows(page))
            self._changed.notify_all()

    def delivered(self, moment: float) -> None:
        """A receiver to which the page is pushed has it as it was at a moment of the clock. No
        scraper is waited for then but those that come regularly."""
        with self._changed:
            self._delivered_at = moment
            self._changed.notify_all()

    def rendered_older(self, captured_at: float) -> None:
        """A page is rendered now that shows the state as it was at an earlier time: the state
        was not available. Its reader has seen nothing that happened since."""
        with self._changed:
            self._older.append((self._clock(), captured_at))

    def _shows(self, page: Served) -> float:
        """The moment from which on a page may miss what happened. Which of the pages that were
        rendered at that time the client got is not known: the oldest counts."""
        sent_at = page.asked_at + page.seconds
        older = [captured for at, captured in self._older if page.asked_at <= at <= sent_at]
        return min(page.asked_at, *older) if older else page.asked_at

    @property
    def scraped_regularly(self) -> bool:
        """Whether a regular scraper would miss the end."""
        with self._changed:
            return bool(self._scrapers.regular(self._clock()))

    def seen_since(self, moment: float) -> bool:
        """Whether every regular scraper has seen the page as it was at a given time."""
        with self._changed:
            return not self._missing(moment, self._clock(), None)

    def after_fork_in_child(self) -> None:
        """Begin with a free lock: its holder may not be in the child."""
        self._changed = threading.Condition()

    @property
    def pending(self) -> bool:
        """Whether something serious has not been seen."""
        with self._changed:
            return self._pending(None)

    def _pending(self, deadline: float | None) -> bool:
        since = self._serious_at
        return since is not None and bool(self._missing(since, since, deadline))

    def _missing(self, since: float, alive_at: float, deadline: float | None) -> list[str]:
        """The scrapers that have not seen what happened at a given time, in words.

        Who came regularly at ``alive_at`` counts. A scraper that has seen it once is not waited
        for when its next visit lies beyond the deadline.
        """
        scrapers = self._scrapers.regular(alive_at)
        if not scrapers:
            if self._delivered_at is not None and self._delivered_at >= since:
                return []
            seen = sum(
                scraper.seen(since) * PAGES_OF_STRANGERS // scraper.pages_to_be_seen
                for scraper in self._scrapers.all()
            )
            return [] if seen >= PAGES_OF_STRANGERS else ["any scraper"]
        return [scraper.name for scraper in scrapers if self._misses(scraper, since, deadline)]

    def _misses(self, scraper: Scraper, since: float, deadline: float | None) -> bool:
        seen = scraper.seen(since)
        if seen == 0 or seen >= scraper.pages_to_be_seen or deadline is None:
            return seen < scraper.pages_to_be_seen
        return scraper.interval is None or scraper.last + scraper.interval <= deadline

    def linger(self, seconds: float, ends_at_once: str | None = None) -> bool:
        """Wait until everything serious was seen, at most so long; whether it was.

        ``ends_at_once`` is for the log: what a person may do to end the wait.
        """
        end = self._clock() + seconds
        with self._changed:
            if not self._pending(end):
                return True
            self._announce(seconds, ends_at_once)
            while self._pending(end):
                left = end - self._clock()
                if left <= 0:
                    self._report_missing()
                    return False
                self._changed.wait(left)
            return True

    def _announce(self, seconds: float, ends_at_once: str | None) -> None:
        since = self._serious_at or 0.0
        intervals = [each.interval for each in self._scrapers.regular(since) if each.interval]
        whom = "a scraper has"
        if intervals:
            whom = f"each scraper (every {median(intervals):.3g} s) has"
        logger.warning(
            "staying up to %.0f s until %s fetched how the run ended%s",
            seconds,
            whom,
            f" ({ends_at_once} ends at once)" if ends_at_once else "",
        )

    def _report_missing(self) -> None:
        since = self._serious_at or 0.0
        unseen = [
            scraper.name for scraper in self._scrapers.regular(since) if scraper.seen(since) == 0
        ]
        if unseen:
            logger.warning(
                "not seen how the run ended: %s; a longer linger waits for them", ", ".join(unseen)
            )
