"""The page as a prometheus_client Collector, for a registry that the user has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client import Metric as ClientMetric
from prometheus_client.registry import Collector

from esper_exporter.metrics.exposition import Capture
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import ABSENT_BITS


class TableCollector(Collector):
    """Yields the same families, labels and values as the exporter's own page."""

    def __init__(self, take: Callable[[], Capture], metrics: tuple[Metric, ...]) -> None:
        self._take = take
        self._metrics = metrics

    def describe(self) -> list[ClientMetric]:
        """The families there may be: without it, registering would render a page."""
        return [ClientMetric(m.family, m.help, m.kind, _unit(m)) for m in self._metrics]

    def collect(self) -> Iterator[ClientMetric]:
        """The families that have samples now."""
        state = self._take()
        bits = state.values.view(np.uint64)
        for metric in self._metrics:
            family = ClientMetric(metric.family, metric.help, metric.kind, _unit(metric))
            for row in state.rows[metric.block]:
                first, last = row.block.spans[metric.name]
                for place in range(first, last):
                    cell = row.start + place
                    if bits[cell] == ABSENT_BITS:
                        continue
                    column = row.block.columns[place]
                    family.add_sample(
                        metric.name + column.suffix,
                        {**dict(row.labels), **dict(column.labels)},
                        float(state.values[cell]),
                    )
            if family.samples:
                yield family


def _unit(metric: Metric) -> str:
    """The unit, where the family's name ends in it, as OpenMetrics demands."""
    return metric.unit if metric.unit and metric.family.endswith("_" + metric.unit) else ""
