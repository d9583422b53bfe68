"""What outlives the process: ends of runs go onto the page, latches and the last page to disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from esper_exporter.log_once import LogOnce
from esper_exporter.shutdown.persistence import Persistence, State
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker
from esper_exporter.state.failure_reason import Reason
from esper_exporter.state.registry import Faults, RunRegistry
from esper_exporter.state.run import RunIdentity
from esper_exporter.state.state_lock import StateLock

KEEP_WAIT_SECONDS = 5.0


class Share(Protocol):
    """A page in memory that an agent on the machine reads."""

    def keep(self) -> None:
        """Publish, and keep what the browser page shows, before this returns."""

    def publish(self) -> None:
        """Write the page as it is now."""

    def soon(self) -> None:
        """Ask for the page to be written soon, without waiting for it."""


class EndingJournal(Protocol):
    """A journal of events, as the end of a run needs it."""

    def record_ending(self, run: RunIdentity, reason: str, detail: str, when: datetime) -> None:
        """Keep how a run ended."""

    def hurry(self) -> None:
        """Write what is held back."""


class RunKeeper:
    """Keeps what must not be lost when the process dies. Nothing here raises.

    ``render_runs`` renders the last page, ``keep_later`` asks for `keep` once the state is free,
    ``journal`` returns the journal, if there is one, ``hurry_push`` asks for the page to be pushed.
    """

    def __init__(
        self,
        lock: StateLock,
        runs: RunRegistry,
        persistence: Persistence,
        tracker: ScrapeTracker,
        log_once: LogOnce,
        *,
        render_runs: Callable[[], bytes],
        keep_later: Callable[[], None],
        share: Share | None,
        journal: Callable[[], EndingJournal | None],
        hurry_push: Callable[[], None] | None = None,
    ) -> None:
        self._lock = lock
        self._runs = runs
        self._persistence = persistence
        self._tracker = tracker
        self._log_once = log_once
        self._render_runs = render_runs
        self._keep_later = keep_later
        self._share = share
        self._journal = journal
        self._hurry_push = hurry_push

    def mark_ended(self, reason: Reason | None, error: BaseException | None, now: datetime) -> bool:
        """The current runs have finished (None) or failed at ``now``; whether that is news.

        ``error`` is what they failed of, where that is known.
        """
        news: list[bool] = []
        try:
            self._lock.submit(lambda: news.append(self._runs.end(reason, now)))
            journal = self._journal()
            if journal is not None and (news[:1] or [True])[0]:
                detail = f"{type(error).__name__}: {error}" if error is not None else ""
                word = "finished" if reason is None else reason.value
                for identity in self._runs.identities():
                    journal.record_ending(identity, word, detail, now)
        except Exception:
            self._log_once.error("ending")
            return False
        # A signal handler may ask for it amid a change: then it is done after that.
        return news[0] if news else True

    def keep(self) -> None:
        """Write what must outlive the process: the latches, and the page as it is now."""
        if self._lock.held_here:
            self._keep_later()
            return
        if self._share is not None:
            self._share.keep()
        if self._hurry_push is not None:
            self._hurry_push()
        try:
            self._persistence.save(self._to_keep, self._render_runs)
        except Exception:
            self._log_once.error("final_page")

    def _to_keep(self) -> State:
        return self._lock.read(self._to_keep_now, lambda: ([], None), KEEP_WAIT_SECONDS)

    def _to_keep_now(self) -> State:
        runs = [entry.state.identity for entry in self._runs.current.values()]
        return self._runs.records(), runs[0] if runs else None

    def noticed(self, faults: Faults) -> None:
        """A latch was lit. The first time it is on disk before the training continues: what comes
        next may be the end. Later only the count changes, which need not be written each time."""
        if faults.any:
            self._tracker.serious()
            if (journal := self._journal()) is not None:
                journal.hurry()
        if faults.new or faults.ended or self._persistence.due:
            self.keep()
        elif self._share is not None:
            self._share.publish()

    def share_batch(self) -> None:
        """Share what a batch has brought as soon as it ends, without waiting for it here."""
        if self._share is not None:
            self._share.soon()
