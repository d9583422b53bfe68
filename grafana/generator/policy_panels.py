"""Panels of the policy's gauges."""

from __future__ import annotations

from grafana.generator.look import (
    PLAIN,
    Steps,
)
from grafana.generator.model import Panel, Target
from grafana.generator.panels import RUN_NAME, series
from grafana.generator.queries import (
    worst,
)
from grafana.generator.tiles import vital

P = "esper_tamiyo"
NO_LOWER_BOUND = -1e9
"""Where the thresholds of a value that may be negative begin."""


def _now(
    title: str,
    name: str,
    aggregation: str,
    description: str,
    *,
    unit: str = "short",
    levels: Steps = PLAIN,
    decimals: int = 3,
    nan: str = "NaN",
) -> Panel:
    return vital(
        title,
        worst(aggregation, f"{P}_{name}"),
        description,
        unit=unit,
        decimals=decimals,
        nan=nan,
        levels=levels,
    )


def _over(
    title: str,
    names: dict[str, tuple[str, str]],
    description: str,
    *,
    unit: str = "short",
    **more: object,
) -> Panel:
    """Several gauges of the policy: word in the legend to aggregation and metric."""
    targets = tuple(
        Target(worst(aggregation, f"{P}_{name}"), f"{word} {RUN_NAME}".strip())
        for word, (aggregation, name) in names.items()
    )
    return series(title, targets, description, unit=unit, **more)  # type: ignore[arg-type]
