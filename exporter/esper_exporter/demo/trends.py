"""How accuracy goes from batch to batch: what counts as better, as worse, as standing still."""

from __future__ import annotations

from collections import deque
from typing import Any

ROLLING_BATCHES = 10
CHANGE = 0.5
"""Percent points by which the rolling mean has to change in one batch to be news."""
STANDSTILL = 0.05
"""Percent points; less than that is a plateau."""
DROP_PERCENT = 10.0
"""By how much of the rolling mean an environment falls short to be told of by itself."""


class Trends:
    """The rolling mean of the batches' accuracies (percent), and the events it gives rise to."""

    def __init__(self) -> None:
        self._accuracies: deque[float] = deque(maxlen=ROLLING_BATCHES)
        self._batches = 0
        self.rolling: float | None = None

    def see(self, accuracies: list[float]) -> list[tuple[str, dict[str, Any]]]:
        """The accuracies of a batch's environments, by their number; the events to tell."""
        before = self.rolling
        self._accuracies.append(sum(accuracies) / len(accuracies))
        now = self.rolling = sum(self._accuracies) / len(self._accuracies)
        self._batches += 1
        if not before:
            return []
        told: list[tuple[str, dict[str, Any]]] = []
        if name := _trend(now - before):
            trend = {
                "batch_idx": self._batches,
                "episodes_completed": self._batches * len(accuracies),
                "rolling_delta": now - before,
                "rolling_avg_accuracy": now,
                "prev_rolling_avg_accuracy": before,
            }
            told.append((name, trend))
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
                told.append(("PERFORMANCE_DEGRADATION", fallen))
        return told


def _trend(change: float) -> str | None:
    if change > CHANGE:
        return "IMPROVEMENT_DETECTED"
    if change < -CHANGE:
        return "DEGRADATION_DETECTED"
    return "PLATEAU_DETECTED" if abs(change) < STANDSTILL else None
