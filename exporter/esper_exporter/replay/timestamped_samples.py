"""Convert a recording to samples with timestamps, as a Prometheus would have scraped them.

The output has only the runs' metrics: the exporter's and the machine's would describe this
process, not the training.

The output is in order of time, page after page, so that memory stays flat: a family's samples are
not grouped, as OpenMetrics requires, but repeat with each page. ``promtool tsdb
create-blocks-from openmetrics`` needs only each series's samples in order of time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from esper_exporter.exporter import Exporter
from esper_exporter.replay.pace import Recorded, event_time, parsed
from esper_exporter.serve.interfaces import Served
from esper_exporter.shutdown.scrape_tracker import PAGES_OF_STRANGERS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

JITTER_SECONDS = 5.0
"""Events of one run arrive out of order by less than this."""

LONGEST_SILENCE_SECONDS = 300.0
"""A run that is silent for longer may have been down: no samples until its next event.

Equal to Prometheus's lookback, during which a series without new samples still has a value.
"""

LONGEST_JUMP_SECONDS = 86400.0
"""An event this much later than the previous one has a wrong time, unless it begins a run."""

_OF_A_RUN = re.compile(rb'(\w+)\{run_id="((?:[^"\\]|\\.)*)",group_id="((?:[^"\\]|\\.)*)"')
_REFUSED = re.compile(rb"^esper_exporter_events_rejected_total\{[^}]*\} (\S+)$", re.MULTILINE)
_BEGINS = "TRAINING_STARTED"

MakeExporter = Callable[[Callable[[], datetime]], Exporter]


class RunTwice(Exception):
    """A run appears again, earlier than its samples already written."""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class History:
    """Reads the lines of recordings and writes a page for each step of recorded time.

    A series that ends simply has no further samples: the text format cannot express Prometheus's
    staleness marker, and a NaN would be an invented measurement. ``labels`` are the labels that a
    scrape would add to every sample.
    """

    def __init__(
        self,
        make: MakeExporter,
        step: float,
        write: Callable[[bytes], object],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        pairs = [f'{name}="{_escaped(value)}",' for name, value in (labels or {}).items()]
        self._labels = "".join(pairs).encode()
        self._step = step
        self._write = write
        self._now = 0.0
        self._due: float | None = None
        self._written = 0.0
        self._headed: set[bytes] = set()
        self._seen: set[tuple[bytes, bytes]] = set()
        self._before: set[tuple[bytes, bytes]] = set()
        self._refused = 0
        self.samples = 0
        self.odd_times = 0
        """Lines with a wrong time; they take the time of the previous line."""
        self._exporter = self._new()

    @property
    def refused(self) -> int:
        """Lines that were not usable events."""
        return self._refused + self._count_refused()

    def _new(self) -> Exporter:
        return self._make(lambda: datetime.fromtimestamp(self._now, UTC))

    def feed(self, line: Recorded) -> None:
        """Write the pages due before this line, then emit it. Raises RunTwice."""
        event = parsed(line) if isinstance(line, bytes) else line
        moment = event_time(event) if isinstance(event, dict) else None
        if moment is not None and moment > 0:
            begins = isinstance(event, dict) and event.get("event_type") == _BEGINS
            if self._due is None:
                self._now = self._due = moment
            elif begins:
                self._begin(moment)
            elif not -JITTER_SECONDS <= moment - self._now <= LONGEST_JUMP_SECONDS:
                self.odd_times += 1
            else:
                self._advance(moment)
        if isinstance(event, bytes):
            self._exporter.emit_line(event)
        else:
            self._exporter.emit(event)

    def finish(self) -> None:
        """Write the last page and the end marker."""
        self._sample(self._now)
        self._write(b"# EOF\n")

    def _begin(self, moment: float) -> None:
        """Begin a run: first write how the previous one ended, at its time."""
        self._sample(self._now)
        if moment < self._now - JITTER_SECONDS:
            self._refused += self._count_refused()
            self._before |= self._seen
            self._seen.clear()
            self._now = self._due = moment
            self._written = 0.0
            self._exporter = self._new()
            return
        for _ in range(PAGES_OF_STRANGERS):
            self._exporter.served(_page_seen())
        if moment - self._now > LONGEST_SILENCE_SECONDS:
            self._due = moment
        self._advance(moment)

    def _advance(self, moment: float) -> None:
        """Advance recorded time to ``moment``, writing the pages due until then."""
        assert self._due is not None
        until = min(moment, self._now + LONGEST_SILENCE_SECONDS)
        while self._due < until:
            self._sample(self._due)
            self._due += self._step
        if moment > until:
            self._due = moment
        self._now = max(self._now, moment)

    def _sample(self, moment: float) -> None:
        moment = round(moment, 3)
        if moment <= self._written:
            return
        page = self._exporter.render(OPENMETRICS)
        stamp = b" %.3f\n" % moment
        lines: list[bytes] = []
        headers: list[bytes] = []
        wanted = False
        count = 0
        for line in page.splitlines():
            if line.startswith(b"# "):
                if line.startswith(b"# HELP "):
                    headers, wanted = [], line.split(b" ", 3)[2] not in self._headed
                headers.append(line + b"\n")
                continue
            found = _OF_A_RUN.match(line)
            if found is None:
                continue
            self._seen.add((found[2], found[3]))
            if wanted:
                self._headed.add(headers[0].split(b" ", 3)[2])
                lines += headers
                wanted = False
            brace = found.end(1) + 1
            lines.append(line[:brace] + self._labels + line[brace:] + stamp)
            count += 1
        if again := self._seen & self._before:
            raise RunTwice(min(again)[0].decode())
        self._written = moment
        self.samples += count
        self._write(b"".join(lines))

    def _count_refused(self) -> int:
        return int(sum(float(n) for n in _REFUSED.findall(self._exporter.render())))


def _page_seen() -> Served:
    """A simulated scrape: during a backfill no scraper fetches the page."""
    return Served(
        address="",
        user_agent="",
        asked_at=time.monotonic(),
        seconds=0.0,
        size=0,
        format="text",
        timeout=None,
        complete=True,
    )
