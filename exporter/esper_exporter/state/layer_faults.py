"""Layers whose gradients or weights were not finite, and losses: a latch for each, made when it is
lit."""

from __future__ import annotations

from datetime import datetime

from esper_exporter.state.latches import KINDS, LAYER_SOURCES, Latch, parse_finiteness_detail

MAX_LATCHES = 256
"""Bounds the series: a NaN in one weight is in every layer soon after."""


class LayerFaults:
    """The latches of one run's layers, by (layer, source, kind)."""

    def __init__(self) -> None:
        self.latches: dict[tuple[str, str, str], Latch] = {}
        self.changed = False

    def light(
        self,
        layer: str,
        source: str,
        kind: str,
        when: datetime,
        attempt: int,
        batch: int | None = None,
    ) -> None:
        """Light a layer's latch for one update. ``batch`` is the number of the update's batch."""
        if source not in LAYER_SOURCES or kind not in KINDS:
            return
        key = (layer, source, kind)
        latch = self.latches.get(key)
        if latch is None:
            if len(self.latches) >= MAX_LATCHES:
                return
            latch = self.latches[key] = Latch()
        if latch.light(when, attempt, batch):
            self.changed = True

    def light_detail(self, detail: str, when: datetime, attempt: int, batch: int | None) -> None:
        """Light the layers that the detail of an anomaly names."""
        for finding in parse_finiteness_detail(detail):
            if finding.head is not None:
                for kind in finding.kinds:
                    self.light(finding.head, finding.source, kind, when, attempt, batch)
