"""One run as `explain` and `compare` see it, from any source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ALIVE, ORPHAN = "ALIVE", "ORPHAN"
"""Not events: a process lived at a time; a process is gone without an ending."""


@dataclass(slots=True)
class Update:
    """One policy update that was carried out: its number, from 1, its time and its fields."""

    number: int
    time: datetime
    seq: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Nonfinite:
    """One thing that was not finite: ``source`` as in the latches, ``kind`` nan or inf."""

    number: int
    time: datetime
    seq: int
    source: str
    name: str | None
    """The head of log-probabilities, the layer of gradients and weights."""
    kind: str
    skipped: bool | None
    """Whether the update was skipped for it; None where the source does not say."""
    detail: str = ""

    @property
    def where(self) -> str:
        """The source with its head or layer; which loss it was."""
        if self.detail.endswith(" loss"):
            return self.detail
        return f"{self.source}[{self.name}]" if self.name else self.source


@dataclass(frozen=True, slots=True)
class Rollback:
    """The governor restored an environment."""

    number: int
    time: datetime
    seq: int
    env: int
    reason: str
    loss: float | None


@dataclass(frozen=True, slots=True)
class Incident:
    """Another reported anomaly: its kind and details."""

    kind: str
    number: int
    time: datetime
    seq: int
    detail: str = ""


@dataclass(slots=True)
class Ending:
    """How a run ended: a reason of `state.failure_reason`, "finished" or "killed", and the
    error's text."""

    reason: str
    time: datetime
    detail: str = ""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(slots=True)
class RunRecord:
    """One run of one group on one rank."""

    run_id: str
    group_id: str
    rank: int
    source: str
    started: datetime | None = None
    config: dict[str, Any] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)
    nonfinite: list[Nonfinite] = field(default_factory=list)
    rollbacks: list[Rollback] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    """Each finished batch: number, time, accuracy (percent), reward."""
    skipped: list[int] = field(default_factory=list)
    """Numbers of the updates that were skipped."""
    outcomes: int = 0
    last_event: datetime | None = None
    last_seq: int = 0
    update_ran_at: tuple[datetime, int] | None = None
    """When the trainer last reported that an update had run, and the event's number."""
    updates_ran: int = 0
    """How often it reported that."""
    carried_out: int | None = None
    """Updates by the run's own counter, where ``updates`` are those that were sampled."""
    ending: Ending | None = None
    alive_at: datetime | None = None
    """When the process was last known to live, by other evidence than its events."""
    orphaned: bool = False
    """Its process is gone and left no ending: it was killed."""

    @property
    def planned_batches(self) -> int | None:
        """Batches that the run planned, None where not known."""
        reported = self.config.get("max_batches")
        episodes, envs = self.config.get("n_episodes"), self.config.get("n_envs")
        if isinstance(reported, int) and reported > 0:
            return reported
        if isinstance(episodes, int) and isinstance(envs, int) and episodes > 0 and envs > 0:
            return -(-episodes // envs)
        return None

    @property
    def done_batches(self) -> int:
        """The number of the last batch that ended."""
        return max((batch["number"] for batch in self.batches), default=0)

    @property
    def complete(self) -> bool:
        """Whether the run did all planned batches."""
        if self.ending is not None:
            return self.ending.reason == "finished"
        planned = self.planned_batches
        return planned is not None and self.done_batches >= planned

    @property
    def current_update(self) -> int:
        """The number of the update that was, or would have been, the next."""
        seen = [update.number for update in self.updates] + self.skipped
        return max([self.done_batches, *seen]) + 1
