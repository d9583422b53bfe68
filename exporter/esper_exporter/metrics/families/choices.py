"""What the policy chooses, head by head."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter
from esper_exporter.state.choices import CHOICES, CHOICES_TOTAL, OTHER

COUNTERS: tuple[Metric, ...] = (
    counter(
        CHOICES_TOTAL,
        "derived: number of decisions in which the head made the choice",
        "Decisions by head and choice, of heads that mattered for the operation; choices outside"
        " the vocabulary are counted as other.",
        labels=("head", "choice"),
        initial=tuple(
            (head, choice) for head, known in CHOICES.items() for choice in (*known, OTHER)
        ),
    ),
)
