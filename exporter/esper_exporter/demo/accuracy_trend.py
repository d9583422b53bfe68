"""Track accuracy from batch to batch: improvement, degradation, plateau."""

from __future__ import annotations

from collections import deque
from typing import Any

ROLLING_BATCHES = 10
CHANGE = 0.5
"""Change of the rolling mean in one batch, in percent points, that emits an event."""
STANDSTILL = 0.05
"""Percent points; less than that is a plateau."""
DROP_PERCENT = 10.0
"""Relative shortfall below the rolling mean at which an environment gets an event."""


class Trends:
    """The rolling mean of the batches' accuracies (percent), and the resulting events."""

    def __init__(self) -> None:
        self._accuracies: deque[float] = deque(maxlen=ROLLING_BATCHES)
        self._batches = 0
        self.rolling: float | None = None

    def see(self, accuracies: list[float]) -> list[tuple[str, dict[str, Any]]]:
        """Add a batch's accuracies, by environment number; returns the events to emit."""
        before = self.rolling
        self._accuracies.append(sum(accuracies) / len(accuracies))
        now = self.rolling = sum(self._accuracies) / len(self._accuracies)
        self._batches += 1
        if not before:
            return []
        events: list[tuple[str, dict[str, Any]]] = []
        if name := _trend(now - before):
            trend = {
                "batch_idx": self._batches,
                "episodes_completed": self._batches * len(accuracies),
                "rolling_delta": now - before,
                "rolling_avg_accuracy": now,
                "prev_rolling_avg_accuracy": before,
            }
            events.append((name, trend))
        for env_id, accuracy in enumerate(accuracies):
            drop = 100.0 * (before - accuracy) / before
            if drop > DROP_PERCENT:
                fallen = {
                    "env_id": env_id,
                    "current_acc": accuracy,
                    "rolling_avg_acc": before,
                    "drop_percent": drop,
                    "threshold_percent": DROP_PERCENT,
                }
                events.append(("PERFORMANCE_DEGRADATION", fallen))
        return events


def _trend(change: float) -> str | None:
    if change > CHANGE:
        return "IMPROVEMENT_DETECTED"
    if change < -CHANGE:
        return "DEGRADATION_DETECTED"
    return "PLATEAU_DETECTED" if abs(change) < STANDSTILL else None
