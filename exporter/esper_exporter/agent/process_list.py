"""The processes of the shares: find, follow, refuse and retire them."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esper_exporter.agent.merged_page import Part
from esper_exporter.agent.owned_file import PageRefused
from esper_exporter.agent.page_view import RunKey
from esper_exporter.agent.share_directory import check_share, process_directories, remove_process
from esper_exporter.agent.tracked_process import TrackedProcess

logger = logging.getLogger("esper_exporter")

MAX_GONE = 512
"""Number of ended processes with a kept page; the oldest are retired first."""


@dataclass(slots=True)
class ProcessList:
    """Follows the processes of some shares. Not thread-safe.

    ``keep_seconds`` is how long the page of an ended process stays. ``seen_since(t)`` says
    whether every regular scraper has fetched a page since the Unix time ``t``. ``ended`` is called
    once for each process that is found to have ended.
    """

    shares: Sequence[Path]
    keep_seconds: float
    seen_since: Callable[[float], bool]
    ended: Callable[[TrackedProcess], None]
    processes: dict[Path, TrackedProcess] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    retired: int = 0
    _torn_before: int = 0
    _logged: set[tuple[str, str]] = field(default_factory=set)

    @property
    def torn(self) -> int:
        """Repeated readings, of all processes so far."""
        return self._torn_before + sum(each.view.torn for each in self.processes.values())

    def refresh(self, now: float) -> list[TrackedProcess]:
        """Look at every share again; the processes that have a page, oldest first."""
        self.refused.clear()
        shown = []
        found: set[Path] = set()
        for share in self.shares:
            for directory in self._directories(share):
                found.add(directory)
                process = self._refresh(share, directory, now)
                if process is not None:
                    shown.append(process)
        for directory in self.processes.keys() - found:
            self._forget(directory)
        self._retire(now)
        shown = [each for each in shown if each.directory in self.processes]
        return sorted(shown, key=lambda each: (each.identity.started_at, each.directory))

    def _directories(self, share: Path) -> Iterable[Path]:
        try:
            check_share(share)
            return list(process_directories(share))
        except FileNotFoundError:
            return []  # no exporter has made it yet
        except (OSError, PageRefused) as problem:
            self._refuse(share, problem)
            return []

    def _refresh(self, share: Path, directory: Path, now: float) -> TrackedProcess | None:
        try:
            process = self.processes.get(directory)
            if process is None:
                process = TrackedProcess.open(share, directory)
                self.processes[directory] = process
            ended_before = process.end is not None
            shown = process.refresh(now)
        except FileNotFoundError:
            # Being created or removed; a leftover is cleaned up by age.
            self._clear_unfinished(directory, now)
            return None
        except (OSError, PageRefused) as problem:
            self._refuse(directory, problem)
            return None
        if process.end is not None and not ended_before:
            self.ended(process)
        if process.gone_at is not None and not process.seen:
            process.seen = process.end is not None and self.seen_since(process.gone_at)
        return process if shown else None

    def _clear_unfinished(self, directory: Path, now: float) -> None:
        try:
            age = now - os.stat(directory, follow_symlinks=False).st_mtime
            if age > self.keep_seconds:
                remove_process(directory)
        except OSError as problem:
            if not isinstance(problem, FileNotFoundError):
                self._refuse(directory, problem)

    def _refuse(self, place: Path, problem: Exception) -> None:
        reason = problem.reason if isinstance(problem, PageRefused) else "unreadable"
        self.refused[reason] += 1
        if (str(place), reason) not in self._logged and len(self._logged) < 1024:
            self._logged.add((str(place), reason))
            logger.warning("not served: %s (%s): %s", place, reason, problem)

    def _retire(self, now: float) -> None:
        """Retire the pages of processes that ended long enough ago, or are too many."""
        gone = sorted(
            (each for each in self.processes.values() if each.gone_at is not None),
            key=lambda each: each.gone_at or 0.0,
        )
        too_many = max(0, len(gone) - MAX_GONE)
        for place, process in enumerate(gone):
            if process.end is None:
                continue
            assert process.gone_at is not None
            over = now - process.gone_at > self.keep_seconds
            # Every scraper has fetched this good end: retire the page.
            finished = process.seen and not process.end.reason
            if over or finished or place < too_many:
                self._remove(process)

    def remove(self, directories: Iterable[Path]) -> None:
        """Retire the pages of these directories, as far as their processes are gone."""
        self.refresh(time.time())
        for directory in directories:
            process = self.processes.get(directory)
            if process is not None and process.gone_at is not None:
                self._remove(process)

    def _remove(self, process: TrackedProcess) -> None:
        try:
            remove_process(process.directory)
        except OSError as problem:
            self._refuse(process.directory, problem)
            return
        self.retired += 1
        self._forget(process.directory)

    def _forget(self, directory: Path) -> None:
        process = self.processes.pop(directory)
        self._torn_before += process.view.torn
        process.close()

    def parts(self, shown: Sequence[TrackedProcess]) -> list[Part]:
        """The pages as parts of one, each run of one process only: of the newest one.

        A run that was started again has its dead process' page beside the living one's, and the
        same sample twice would cost the whole scrape.
        """
        owner: dict[RunKey, tuple[bool, int]] = {}
        for number, process in enumerate(shown):
            lines = process.view.lines
            for run in lines.runs if lines is not None else ():
                owner[run] = max(owner.get(run, (False, -1)), (process.alive, number))
        parts = []
        for number, process in enumerate(shown):
            part = process.part()
            if part is None:
                continue
            foreign = np.array([owner[run][1] != number for run in part.lines.runs], np.bool_)
            if foreign.any():
                if process.alive:
                    self._refuse(
                        process.directory,
                        PageRefused("duplicate", "another process has the same run and rank"),
                    )
                hidden = foreign[part.lines.sources]
                if part.hidden is not None:
                    hidden |= part.hidden
                part = Part(part.lines, part.families, part.values, hidden)
            parts.append(part)
        return parts
