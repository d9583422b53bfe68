"""A recording as samples with their times: what a Prometheus would have scraped.

Only what belongs to a run is written: the exporter's own metrics, and those of the machine, would
tell of this process and not of the training.

The output is in the order of time, one page after the other, so that nothing has to be kept: a
family's samples do not stand together, as OpenMetrics has it, but come again with each page.
``promtool tsdb create-blocks-from openmetrics`` wants the samples of each series in the order of
time and no more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from esper_exporter.exporter import Exporter
from esper_exporter.replay.pace import event_time
from esper_exporter.serve.interfaces import Served
from esper_exporter.shutdown.scrape_tracker import PAGES_OF_STRANGERS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

JITTER_SECONDS = 5.0
"""Events of one run arrive out of order by less than this."""

LONGEST_SILENCE_SECONDS = 300.0
"""A run that says nothing for longer may have been gone: no samples until it speaks again.

As long as Prometheus' own lookback, in which a series without new samples still has a value.
"""

LONGEST_JUMP_SECONDS = 86400.0
"""An event so much later than the one before is not believed, unless it begins a run."""

_OF_A_RUN = re.compile(rb'(\w+)\{run_id="((?:[^"\\]|\\.)*)",group_id="((?:[^"\\]|\\.)*)"')
_REFUSED = re.compile(rb"^esper_exporter_events_rejected_total\{[^}]*\} (\S+)$", re.MULTILINE)
_BEGINS = b'"TRAINING_STARTED"'

MakeExporter = Callable[[Callable[[], datetime]], Exporter]


class RunTwice(Exception):
    """A run comes again, earlier than what is already written of it."""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class History:
    """Takes the lines of recordings, and writes a page for each step of recorded time.

    A series that vanishes simply has no further samples. The text format cannot write Prometheus'
    marker for that, and a NaN would be a measurement that nobody made. ``labels`` are those that a
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
        told = [f'{name}="{_escaped(value)}",' for name, value in (labels or {}).items()]
        self._labels = "".join(told).encode()
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
        """Lines whose time could not be meant; they count for the time of the line before."""
        self._exporter = self._new()

    @property
    def refused(self) -> int:
        """Lines that were no events that could be used."""
        return self._refused + self._count_refused()

    def _new(self) -> Exporter:
        return self._make(lambda: datetime.fromtimestamp(self._now, UTC))

    def feed(self, line: bytes) -> None:
        """Take one line in; pages that are due before it are written first. Raises RunTwice."""
        told = event_time(line)
        if told is not None and told > 0:
            begins = _BEGINS in line
            if self._due is None:
                self._now = self._due = told
            elif begins:
                self._begin(told)
            elif not -JITTER_SECONDS <= told - self._now <= LONGEST_JUMP_SECONDS:
                self.odd_times += 1
            else:
                self._advance(told)
        self._exporter.emit_line(line)

    def finish(self) -> None:
        """Write the last page, and the end."""
        self._sample(self._now)
        self._write(b"# EOF\n")

    def _begin(self, told: float) -> None:
        """A run begins: how the one before ended is written first, at its own time."""
        self._sample(self._now)
        if told < self._now - JITTER_SECONDS:
            self._refused += self._count_refused()
            self._before |= self._seen
            self._seen.clear()
            self._now = self._due = told
            self._written = 0.0
            self._exporter = self._new()
            return
        for _ in range(PAGES_OF_STRANGERS):
            self._exporter.served(_page_seen())
        if told - self._now > LONGEST_SILENCE_SECONDS:
            self._due = told
        self._advance(told)

    def _advance(self, told: float) -> None:
        """Let recorded time go on to a moment; what is due until then is written."""
        assert self._due is not None
        until = min(told, self._now + LONGEST_SILENCE_SECONDS)
        while self._due < until:
            self._sample(self._due)
            self._due += self._step
        if told > until:
            self._due = told
        self._now = max(self._now, told)

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
    """A scrape that the recording implies: nobody asks while it is replayed."""
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
