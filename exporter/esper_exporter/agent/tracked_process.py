"""A process of a share, followed by the agent: alive, ended, retired."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from esper_exporter.agent.end_of_process import (
    failed_runs,
    hidden_after_death,
    unfinished_runs,
    with_end,
)
from esper_exporter.agent.exit_status import DIED, Exit, read_exit
from esper_exporter.agent.merged_page import FamilyOrder, MergedPage, Part
from esper_exporter.agent.page_view import PageView, RunKey
from esper_exporter.agent.process_identity import ProcessIdentity, lives
from esper_exporter.agent.share_directory import CLOSED, DEATH, EXIT, LOCK, identify, write_record
from esper_exporter.metrics.exposition import TEXT

WRAPPER_SECONDS = 5.0
"""How long to wait for the wrapper's record of an ended process before judging without it."""


@dataclass(slots=True, eq=False)
class TrackedProcess:
    """A process's page, and how the process ended.

    Raises PageRefused or OSError from `open` and `refresh` for a page that must not be served.
    """

    directory: Path
    owners: frozenset[int]
    identity: ProcessIdentity
    view: PageView
    gone_at: float | None = None
    """Unix time at which the agent found the process gone, None while it lives."""
    end: Exit | None = None
    """How it ended, None while it lives or its wrapper has not reported yet."""
    unfinished: list[RunKey] = field(default_factory=list)
    """Its runs that were active when it ended."""
    seen: bool = False
    """Whether every regular scraper has fetched the end."""

    @classmethod
    def open(cls, share: Path, directory: Path) -> TrackedProcess:
        """Start following a process's directory."""
        owners, identity = identify(share, directory)
        return cls(directory, owners, identity, PageView(directory, owners, identity.rank))

    @property
    def alive(self) -> bool:
        """Whether the process was alive at the last check."""
        return self.gone_at is None

    def refresh(self, now: float) -> bool:
        """Read the page and check the process; return whether there is a page to show."""
        if self.gone_at is None and not lives(self.identity, self.directory / LOCK):
            # Check for death before reading the page, so as to read the last publication.
            self.gone_at = now
        shown = self.view.refresh()
        if self.gone_at is not None and self.end is None:
            self._judge(now)
        return shown

    def _judge(self, now: float) -> None:
        """How the process ended: by its own report, its wrapper's record, or unknown."""
        published = self.view.published
        if published is not None:
            self.unfinished = unfinished_runs(self.view, published.values)
        kept = read_exit(self.directory / DEATH, self.owners)
        if kept is not None:
            self.end, self.gone_at = kept, kept.at
            return
        if self.identity.wrapper:
            reported = read_exit(self.directory / EXIT, self.owners)
            if reported is not None:
                unreported = self.unfinished or self.died_before_its_run
                self._found(reported if unreported else replace(reported, reason=self._said()))
                return
            assert self.gone_at is not None
            if now - self.gone_at < WRAPPER_SECONDS:
                return
        at = self.gone_at if self.gone_at is not None else now
        died = self.unfinished or self.died_before_its_run
        self._found(Exit(DIED if died else self._said(), 0, -1, at))

    @property
    def died_before_its_run(self) -> bool:
        """Whether it ended before its first event, and without closing its exporter."""
        return not self.view.has_runs() and not (self.directory / CLOSED).exists()

    def _said(self) -> str:
        """The failure reason on the process's page, empty without one."""
        published = self.view.published
        return (
            "" if published is None else min(failed_runs(self.view, published.values), default="")
        )

    def _found(self, end: Exit) -> None:
        self.end = end
        # With read-only access to the share, an agent judges again after a restart.
        with suppress(OSError):
            write_record(self.directory / DEATH, end.to_json())

    def part(self) -> Part | None:
        """Its part of the node's page."""
        view, published = self.view, self.view.published
        if published is None or view.lines is None or view.schema is None:
            return None
        families = view.schema.families
        if self.gone_at is None:
            return Part(view.lines, families, published.values)
        values = published.values
        if self.end is not None:
            values = with_end(view, values, self.unfinished, self.end)
        hidden = hidden_after_death(view.lines, families, self.seen)
        return Part(view.lines, families, values, hidden)

    def last_page(self) -> bytes:
        """The text page as the process published it last."""
        view, published = self.view, self.view.published
        if published is None or view.lines is None or view.schema is None:
            return b""
        return _rendered(Part(view.lines, view.schema.families, published.values))

    def ended_page(self) -> bytes:
        """The text page with how the process ended, without its own measurements."""
        part = self.part()
        return b"" if part is None else _rendered(part)

    def close(self) -> None:
        """Close the file descriptors."""
        self.view.close()


def _rendered(part: Part) -> bytes:
    return MergedPage(FamilyOrder(), TEXT).render([part])
