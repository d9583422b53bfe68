"""The pusher: renders the page at an interval and sends it to a receiver, from a thread.

Every page goes through the backlog, oldest first: a receiver refuses samples that are older than
what it has. The training waits for none of it; closing the exporter does, for a bounded time.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.push.backlog import Backlog
from esper_exporter.push.options import PushOptions
from esper_exporter.push.page_samples import PageSamples
from esper_exporter.push.receiver import SECONDS, Outcome, Receiver
from esper_exporter.push.timeline import Timeline
from esper_exporter.state import counted
from esper_exporter.state.counters import Counter

if TYPE_CHECKING:
    from esper_exporter.push.write_request import Encoder

logger = logging.getLogger("esper_exporter")

DROP_REASONS = ("refused", "bytes", "age", "unreadable")
FAILURE_REASONS = ("connection", "timeout", "tls", "server", "throttled", "configuration")
FIRST_SECONDS = 1.0
"""When the first page is sent: a run that has just begun is seen at once."""
HURRY_SECONDS = 1.0
"""Pages that are sent out of turn, after a latch or an end, lie so far apart at least."""
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
STALE_INTERVALS = 2
"""How many intervals an ended process's last values stay the newest: as long as a page that two
scrapes fetch before it is gone."""


class Count(Protocol):
    """Counts something that the exporter reports of itself."""

    def __call__(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Add ``by`` to a counter of `esper_exporter.state.counted`."""


class Pusher:
    """Pushes one exporter's page. No method raises.

    ``page`` renders it in the text format, ``clock`` is in Unix seconds, ``warn`` logs a line once,
    ``on_delivered`` gets the moment (``time.monotonic()``) up to which the receiver has everything.
    ``before`` is the page that another process of the same labels pushed last, if one did.
    """

    def __init__(
        self,
        options: PushOptions,
        page: Callable[[], bytes],
        clock: Callable[[], float],
        count: Count,
        warn: Callable[[str], object],
        on_error: Callable[[], None],
        on_delivered: Callable[[float], None],
        before: bytes = b"",
    ) -> None:
        self._options = options
        self._page = page
        self._clock = clock
        self._count = count
        self._warn = warn
        self._on_error = on_error
        self._on_delivered = on_delivered
        self._before = before
        self._receiver = Receiver(options.config)
        self._pid = os.getpid()
        self._taking = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._encoder: Encoder | None = None
        self._backlog: Backlog | None = None
        self._timeline: Timeline | None = None
        self._hurried = False
        self._closing = False
        self._deadline: float | None = None
        self._taken_at = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._told: set[str] = set()
        self._last_success: float | None = None

    def state(self) -> tuple[float, float | None]:
        """The bytes that wait, and when the receiver last took some (Unix seconds, if ever)."""
        return float(self._backlog.bytes) if self._backlog else 0.0, self._last_success

    def start(self) -> None:
        """Start the thread. Harmless when it runs already, and in a forked child."""
        if self._thread is None and os.getpid() == self._pid and not self._closing:
            # They exist at 0: a counter that begins above 0 is invisible to increase().
            self._count(counted.PUSH_SAMPLES, by=0)
            for reason in DROP_REASONS:
                self._count(counted.PUSH_SAMPLES_DROPPED, reason, by=0)
            for reason in FAILURE_REASONS:
                self._count(counted.PUSH_FAILURES, reason, by=0)
            self._thread = start_daemon(self._run, "esper-exporter-push")

    def hurry(self) -> None:
        """Send a page soon: a latch was lit, or a run has ended. Costs the caller nothing."""
        self._hurried = True
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Send the last page and the end of its series, within ``seconds``; what does not arrive
        waits on disk for the next process. Harmless when it was not started."""
        thread = self._thread
        if thread is None or os.getpid() != self._pid or self._closing:
            return
        self._closing = True
        # Here, not on the thread: that may be waiting for the network just now.
        self._take(last=True)
        self._retry_at, self._failures = 0.0, 0
        self._deadline = time.monotonic() + seconds
        self._wake.set()
        thread.join(seconds + 0.2)
        backlog = self._backlog
        if backlog is not None:
            if backlog.bytes:
                self._warn(
                    f"{backlog.bytes} bytes of samples could not be pushed to"
                    f" {self._options.config.url} before the end; the next process that pushes"
                    " there sends them, if it finds this one's state directory"
                )
            backlog.close()

    def after_fork_in_child(self) -> None:
        """The child does not push, and must not keep the parent's backlog locked."""
        self._thread = None
        self._taking = threading.Lock()
        if self._backlog is not None:
            self._backlog.release()

    # -- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        due = time.monotonic() + min(FIRST_SECONDS, self._options.interval)
        not_before = 0.0
        while True:
            self._wake.clear()
            now = time.monotonic()
            if now >= due or (self._hurried and now >= not_before):
                self._hurried = False
                not_before = now + HURRY_SECONDS
                if now >= due:
                    # Runs that began together drift apart.
                    due = now + self._options.interval * random.uniform(0.95, 1.05)
                self._take(last=False)
            try:
                waiting = self._send_first()
            except Exception:
                self._on_error()
                waiting, self._retry_at = True, time.monotonic() + 1.0
            now, deadline = time.monotonic(), self._deadline
            if deadline is not None:
                if not waiting or max(now, self._retry_at) >= deadline:
                    return
                due = deadline
            until = min(due, self._retry_at) if waiting else due
            if self._hurried and deadline is None:
                until = min(until, not_before)
            if until > now:
                self._wake.wait(until - now)

    def _take(self, *, last: bool) -> None:
        """Render a page and put it behind what waits. ``last``: its series end with it."""
        with self._taking:
            if self._closing and not last:
                return
            taken_at = time.monotonic()
            try:
                self._take_now(last)
                self._taken_at = taken_at
            except Exception:
                self._on_error()

    def _take_now(self, last: bool) -> None:
        encoder, backlog, timeline = self._parts()
        now = int(self._clock() * 1000)
        moment = timeline.next(now, needed=last)
        if moment is None:
            return
        stale_at = None
        if last:
            stale_at = moment + int(STALE_INTERVALS * self._options.interval * 1000)
            timeline.end(stale_at)
        for request in encoder.encode(self._page(), moment, stale_at):
            backlog.put(request.body, request.samples, moment)

    def _parts(self) -> tuple[Encoder, Backlog, Timeline]:
        """The encoder, the backlog and the times, made by the first page: the libraries take
        time to import, and the disk may be a slow one."""
        if self._encoder is None or self._backlog is None or self._timeline is None:
            from esper_exporter.push.write_request import Encoder

            options = self._options
            self._backlog = Backlog(
                options.directory,
                options.max_bytes,
                options.max_age,
                self._dropped,
                self._warn,
                self._clock,
            )
            self._timeline = Timeline(options.directory, options.labels)
            self._encoder = Encoder(PageSamples(options.labels), self._before)
        return self._encoder, self._backlog, self._timeline

    def _dropped(self, reason: str, samples: int) -> None:
        self._count(counted.PUSH_SAMPLES_DROPPED, reason, by=samples)

    def _send_first(self) -> bool:
        """Send the oldest request if it is time to; whether any waits."""
        backlog = self._backlog
        if backlog is None:
            return False
        taken_at = self._taken_at
        found = backlog.first()
        if found is None:
            return False
        if time.monotonic() < self._retry_at:
            return True
        waiting, body = found
        seconds = SECONDS
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        try:
            outcome = self._receiver.send(body, seconds)
        except Exception:
            self._on_error()
            outcome = Outcome("failed", "internal", "internal error")
        if outcome.kind == "failed":
            self._failed(outcome)
            return True
        backlog.done(waiting)
        if outcome.kind == "refused":
            self._count(counted.PUSH_SAMPLES_DROPPED, outcome.reason, by=waiting.samples)
            self._tell(outcome, "refused samples, which are dropped")
        else:
            self._sent(waiting.samples)
        if not backlog.bytes and outcome.kind == "sent":
            self._on_delivered(taken_at)
        return bool(backlog.bytes)

    def _sent(self, samples: int) -> None:
        self._count(counted.PUSH_SAMPLES, by=samples)
        self._last_success = self._clock()
        if self._failures:
            logger.info("pushing to %s goes on", self._options.config.url)
        self._failures = 0
        self._retry_at = 0.0

    def _tell(self, outcome: Outcome, what: str) -> None:
        """Log the first outcome for each reason: the receiver's words may differ every time."""
        if outcome.reason not in self._told:
            self._told.add(outcome.reason)
            self._warn(f"{self._options.config.url} {what}: {outcome.detail}")

    def _failed(self, outcome: Outcome) -> None:
        self._count(counted.PUSH_FAILURES, outcome.reason)
        self._tell(outcome, "took no samples, which wait")
        backoff = min(BACKOFF_SECONDS * 2**self._failures, LONGEST_BACKOFF_SECONDS)
        self._failures = min(self._failures + 1, 16)
        wait = max(
            backoff * random.uniform(0.8, 1.2), min(outcome.wait, LONGEST_RETRY_AFTER_SECONDS)
        )
        self._retry_at = time.monotonic() + wait
