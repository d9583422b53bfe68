"""Equal content for both sides: 16,000 gauges with realistic values."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Gauge

from esper_exporter.metrics.exposition import OPENMETRICS, TEXT, Capture, Page, capture
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import Block, Labels, ValueTable

FAMILIES = 28
ENVS = 64
SLOTS = 9
LABELS = ("run_id", "group_id", "rank", "env_id", "slot_id")


def label_sets() -> list[Labels]:
    """Labels of every row: 64 environments of nine slots."""
    return [
        tuple(zip(LABELS, ("night-7", "default", "0", str(env), f"r{slot}c0"), strict=True))
        for env in range(ENVS)
        for slot in range(SLOTS)
    ]


def values() -> np.ndarray:
    """Doubles that are exact float32, as a trainer's are, and some NaN."""
    random = np.random.default_rng(7)
    drawn = random.normal(size=(ENVS * SLOTS, FAMILIES)).astype(np.float32).astype(np.float64)
    drawn[::97, 0] = np.nan
    return drawn


class OurPage:
    """The value table with its pages."""

    def __init__(self) -> None:
        metrics = tuple(
            Metric(name=f"esper_bench_family_{n}_ratio", kind="gauge", help="A gauge.", block="b")
            for n in range(FAMILIES)
        )
        self.table = ValueTable([Block.of("b", metrics)])
        self.rows = []
        for labels, row_values in zip(label_sets(), values(), strict=True):
            row = self.table.add_row("b", labels)
            assert row is not None
            self.table.values[row.start : row.stop] = row_values
            self.rows.append(row)
        self._pages = {form: Page(metrics, form) for form in (TEXT, OPENMETRICS)}
        self._captured: Capture | None = None

    def render(self, form: str = TEXT) -> bytes:
        self._captured = capture(self.table, self._captured)
        return self._pages[form].render(self._captured)


class TheirPage:
    """The same in a prometheus_client registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gauges = [
            Gauge(f"esper_bench_family_{n}_ratio", "A gauge.", LABELS, registry=self.registry)
            for n in range(FAMILIES)
        ]
        self.children = []
        for labels, row_values in zip(label_sets(), values(), strict=True):
            children = [gauge.labels(*(value for _, value in labels)) for gauge in self.gauges]
            for child, value in zip(children, row_values, strict=True):
                child.set(value)
            self.children.append(children)
