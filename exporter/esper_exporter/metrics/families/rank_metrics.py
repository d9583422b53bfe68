"""Ranks of a distributed training: which one the others wait for, and whether they still agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge


def _of_rank(field: str) -> Callable[[Any], Any]:
    return lambda roots: getattr(roots["run"].rank_steps, field, None)


METRICS: tuple[Metric, ...] = (
    gauge(
        "run",
        "esper_rank_last_update_timestamp_seconds",
        "derived: when the rank's own part of its newest step was done",
        "When the rank had done its own part of its newest step, before it waited for the other"
        " ranks. Absent unless the training reports steps.",
        read=_of_rank("reported_at"),
    ),
    gauge(
        "run",
        "esper_rank_update",
        "derived: index of the rank's newest step",
        "Index of the newest step whose own part the rank has done. The rank with the smallest is"
        " the one that the others wait for.",
        read=_of_rank("step"),
    ),
    gauge(
        "run",
        "esper_rank_step_seconds",
        "derived: duration of the rank's own part of its newest step",
        "Duration of the rank's own part of its newest step, without waiting for other ranks.",
        read=_of_rank("seconds"),
    ),
    gauge(
        "run",
        "esper_rank_checked_update",
        "derived: index of the step whose values are compared",
        "Index of the step that the other esper_rank_checked_ gauges are of.",
        read=_of_rank("checked_step"),
    ),
    gauge(
        "run",
        "esper_rank_checked_loss",
        "derived: loss after the all-reduce at esper_rank_checked_update",
        "Loss after the all-reduce. Ranks that differ at the same esper_rank_checked_update train"
        " different models.",
        read=_of_rank("checked_loss"),
    ),
    gauge(
        "run",
        "esper_rank_checked_gradient_norm",
        "derived: gradient norm after the all-reduce at esper_rank_checked_update",
        "Gradient norm after the all-reduce. Ranks that differ at the same"
        " esper_rank_checked_update train different models.",
        read=_of_rank("checked_gradient_norm"),
    ),
)
