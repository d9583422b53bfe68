"""A replay: feed the lines of recordings in order."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from esper_exporter.journal.sources import is_journal
from esper_exporter.replay.lines import Damaged, OnBytes, read_lines
from esper_exporter.replay.pace import Feed, Pace, Recorded, parsed
from esper_exporter.replay.stop import Waiter
from esper_exporter.replay.tail import follow_lines

LOG = logging.getLogger("esper_exporter.replay")


class Watcher(Protocol):
    """Follows a replay's progress."""

    def on_bytes(self, count: int) -> None:
        """Count bytes read from a file."""

    def on_line(self) -> None:
        """Count a line fed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay.

    ``files`` are paths, ``-`` is standard input. ``speed`` divides recorded time; 0 is as fast as
    possible. ``until`` is the number of the last line, counted over all files, bad and empty ones
    included; None is all. ``follow`` keeps reading the last file as it grows.
    """

    files: Sequence[str]
    speed: float = 1.0
    until: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a replay ended: lines fed, files that could not be read to their end, and whether a stop
    request came before the end."""

    lines: int
    damaged: tuple[str, ...]
    stopped: bool


def read_journal(name: str, waiter: Waiter, on_bytes: OnBytes) -> Generator[bytes]:
    """The events of a journal as lines. Raises Damaged when it cannot be read to its end."""
    from esper_exporter.journal.journal_lines import journal_lines

    try:
        yield from journal_lines(Path(name))
    except (OSError, ImportError) as error:
        raise Damaged(str(error)) from error


def replay(plan: Plan, feed: Feed, waiter: Waiter, watcher: Watcher) -> Outcome:
    """Feed the plan's lines, each file in its recorded time, and return the outcome.

    It logs a file that cannot be read to its end once, and continues with the next.
    """
    count = 0
    damaged = []
    last = len(plan.files) - 1
    for place, name in enumerate(plan.files):
        if plan.until is not None and count >= plan.until:
            break
        read = follow_lines if plan.follow and place == last else read_lines
        if is_journal(Path(name)):
            read = read_journal
        pace = Pace(plan.speed, waiter) if plan.speed > 0 else None
        lines = read(name, waiter, watcher.on_bytes)
        try:
            for line in lines:
                event: Recorded = line
                if pace is not None:
                    event = parsed(line)
                    if isinstance(event, dict) and pace.hold(event):
                        break
                if waiter.stopping:
                    break
                count += 1
                if not line.isspace() and line:
                    feed(event)
                watcher.on_line()
                if plan.until is not None and count >= plan.until:
                    break
        except Damaged as error:
            damaged.append(name)
            LOG.warning("%s: %s; replayed the lines before that", name, error)
        finally:
            lines.close()
        if waiter.stopping:
            return Outcome(count, tuple(damaged), stopped=True)
    return Outcome(count, tuple(damaged), stopped=False)
