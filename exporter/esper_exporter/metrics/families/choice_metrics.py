"""What the policy chooses, head by head."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter
from esper_exporter.state import counted

COUNTERS: tuple[Metric, ...] = (
    counter(
        counted.CHOICES,
        "derived: number of decisions in which the head made the choice",
        "Decisions by head and choice, of heads that mattered for the operation; choices outside"
        " the vocabulary are counted as other.",
    ),
)
