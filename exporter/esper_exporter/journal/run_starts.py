"""Which run an event of telemetry belongs to: the last of its group that began before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class RunStarts:
    """The runs that began so far, in order: which event belongs to which."""

    seqs: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def add(
        self, seq: int, group: str, told: str | None, begun: datetime | None, rank: int
    ) -> None:
        """A run begins. Its name is the event's and its time, as on the exporter's page."""
        stamp = f"-{begun:%Y%m%dT%H%M%SZ}" if begun is not None else ""
        stem = name = f"{told or 'run'}{stamp}"
        number = 1
        while (name, group) in zip(self.names, self.groups, strict=True):
            number += 1
            name = f"{stem}-{number}"
        self.seqs.append(seq)
        self.groups.append(group)
        self.names.append(name)
        self.ranks.append(rank)

    def of(self, seq: int, group: str, phantom: bool) -> tuple[str, str, int]:
        """(run, group, rank) of an event."""
        fallback: int | None = None
        for place in range(len(self.seqs) - 1, -1, -1):
            if self.seqs[place] > seq:
                continue
            if self.groups[place] == group:
                return self.names[place], group, self.ranks[place]
            if fallback is None:
                fallback = place
        if phantom and group == "default" and fallback is not None:
            return self.names[fallback], self.groups[fallback], self.ranks[fallback]
        return "run", group, 0
