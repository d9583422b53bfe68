"""Assign an event of telemetry to its run: the last of its group that began before it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class RunStarts:
    """The runs that began so far, in order; assigns events to them."""

    seqs: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def add(
        self, seq: int, group: str, run_id: str | None, begun: datetime | None, rank: int
    ) -> None:
        """A run begins. Its name is the event's and its time, as on the exporter's page."""
        stamp = f"-{begun:%Y%m%dT%H%M%SZ}" if begun is not None else ""
        stem = name = f"{run_id or 'run'}{stamp}"
        number = 1
        while (name, group) in zip(self.names, self.groups, strict=True):
            number += 1
            name = f"{stem}-{number}"
        place = bisect_right(self.seqs, seq)
        self.seqs.insert(place, seq)
        self.groups.insert(place, group)
        self.names.insert(place, name)
        self.ranks.insert(place, rank)

    def of_all(self, seqs: Any, groups: Any) -> tuple[Any, Any, Any] | None:
        """Runs, groups and ranks as Arrow arrays, for Arrow columns of numbers and groups.

        None unless each event is of the group of the run that began last before it.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        places = np.searchsorted(self.seqs, seqs.to_numpy(), "right") - 1
        if not self.seqs or places.min(initial=0) < 0:
            return None
        taken = pa.array(places)
        if not pc.all(pc.equal(pa.array(self.groups, pa.string()).take(taken), groups)).as_py():
            return None
        names = pa.array(self.names, pa.string()).take(taken)
        return names, groups, pa.array(self.ranks, pa.int64()).take(taken)

    def of(self, seq: int, group: str, phantom: bool) -> tuple[str, str, int]:
        """(run, group, rank) of an event."""
        fallback: int | None = None
        for place in range(bisect_right(self.seqs, seq) - 1, -1, -1):
            if self.groups[place] == group:
                return self.names[place], group, self.ranks[place]
            if fallback is None:
                fallback = place
        if phantom and group == "default" and fallback is not None:
            return self.names[fallback], self.groups[fallback], self.ranks[fallback]
        return "run", group, 0
