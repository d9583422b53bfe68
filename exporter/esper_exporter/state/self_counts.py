"""What the exporter counts of itself: events read and refused, and what they cost."""

from __future__ import annotations

from esper_exporter.state import counted
from esper_exporter.state.counters import Counter, Distributions, Histogram, Tallies
from esper_exporter.state.hub import HubHealth

HELD_EMITS = 2048
"""Durations that are held before they are put into their histogram."""


class SelfCounts:
    """The exporter's own counters and histograms. Its owner calls it under one lock."""

    def __init__(self) -> None:
        self.tallies = Tallies(counted.OF_EXPORTER)
        self.distributions = Distributions(counted.OF_EXPORTER)
        self.events = 0
        """Events read so far, good or bad."""
        self._of_hub: dict[tuple[Counter, str], float] = {}
        self._emits: list[float] = []
        self.last_event: float | None = None
        """When the newest event came in, in Unix seconds."""

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Count something."""
        self.tallies.add(counter, *labels, by=by)

    def observe(self, histogram: Histogram, seconds: float) -> None:
        """Observe a duration."""
        self.distributions.observe(histogram, seconds)

    def reject(self, reason: str) -> None:
        """Count an event that could not be used."""
        self.tallies.add(counted.EVENTS_REJECTED, reason)

    def emitted(self, seconds: float) -> None:
        """Count an event, good or bad, that took ``seconds`` to read and to apply."""
        self.events += 1
        emits = self._emits
        emits.append(seconds)
        if len(emits) >= HELD_EMITS:
            self._observe_emits()

    def _observe_emits(self) -> None:
        emits, self._emits = self._emits, []
        self.distributions.observe_all(counted.EMIT_DURATION, emits)

    def follow_hub(self, health: HubHealth) -> None:
        """Bring the hub's counters up to date. A hub that was reset counts from 0 again."""
        for counter, counts in (
            (counted.HUB_DROPPED, health.dropped),
            (counted.HUB_DELIVERED, health.delivered),
        ):
            for queue, count in counts.items():
                key = counter, queue
                before = self._of_hub.get(key, 0.0)
                self._of_hub[key] = count
                self.tallies.add(counter, queue, by=count - before if count >= before else count)

    def settle(self) -> None:
        """Bring the counter and the durations of events up to date."""
        self._observe_emits()
        self.tallies.add(counted.EMITTED, by=self.events - self.tallies.get(counted.EMITTED))
