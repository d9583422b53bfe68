"""Find non-finite values in an update's vectors: source, head or layer, NaN or Inf."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from esper_exporter.probes.torch import minibatch as policy
from esper_exporter.probes.torch.gradient_fields import Layout
from esper_exporter.probes.torch.nonfinite_report import Findings, Found

Array = np.ndarray[Any, np.dtype[np.float64]]

MOST_LAYERS = 8
"""Layers that one report names: a NaN loss reaches all of them."""

_SAMPLE_SOURCES = {
    "values": "values",
    "returns": "returns",
    "advantages": "advantages",
    "raw_advantages": "advantages",
    "td_errors": "td_errors",
}


@dataclass(slots=True)
class Piece:
    """One vector of an update: its kind, and what the host needs to read it."""

    kind: str
    vector: Tensor | None
    about: Any = None
    values: Array = field(default_factory=lambda: np.empty(0))
    """The vector on the host, once it is there."""


class Sources:
    """Checks vectors on the host, and adds non-finite sources to the findings."""

    def __init__(self, findings: Findings, layout: Layout) -> None:
        self.findings = findings
        self.infinite: set[str] = set()
        """Heads whose logits were infinite."""
        self.losses: dict[str, list[float]] = {}
        self._layout = layout

    def loss(self, name: str, value: float) -> None:
        """One minibatch's loss."""
        self.losses.setdefault(name, []).append(value)
        if name != "entropy_loss" and not math.isfinite(value):
            self.findings.add([("loss", name, kind_of(value))])

    def logits(self, heads: Sequence[str], counts: Array) -> None:
        """`minibatch.logits_kinds` of these heads."""
        self.findings.add(self._in_logits(heads, counts))

    def log_probs(self, heads: Sequence[str], nan: Sequence[Any], inf: Sequence[Any]) -> None:
        """Whether each head's log-probabilities have NaN, and Inf."""
        self.findings.add(self._in_log_probs(heads, nan, inf))

    def gradients(self, indices: Iterable[int], norms: Array) -> None:
        """The gradient norms of these parameters; some are not finite."""
        self.findings.add(self._in_layers("gradients", indices, norms))

    def look(self, piece: Piece, values: Array) -> None:
        """Note the non-finite sources of a vector that has reached the host."""
        if piece.kind == "minibatch":
            self.findings.add(self._in_minibatch(piece.about, values))
        elif piece.kind == "loss":
            self.loss(piece.about, float(values[0]))
        elif piece.kind == "logits":
            self.findings.add(self._in_logits(piece.about, values))
        elif piece.kind == "gradients":
            if not piece.about.scaled and not np.isfinite(values[1:]).all():
                self.gradients(piece.about.indices, values[1:])
        elif piece.kind == "weights":
            if not np.isfinite(values).all():
                self.findings.add(self._in_layers("weights", range(len(values)), values))
        elif piece.kind in _SAMPLE_SOURCES and values[-2]:
            kinds = ["nan"] if values[-1] else []
            kinds += ["inf"] if values[-2] > values[-1] else []
            self.findings.add((_SAMPLE_SOURCES[piece.kind], None, kind) for kind in kinds)

    def _in_logits(self, heads: Sequence[str], counts: Array) -> Found:
        for head, (nan, infinite) in zip(heads, counts.reshape(-1, 2).tolist(), strict=True):
            if infinite and not nan:
                self.infinite.add(head)
                yield "log_probs", head, "inf"
            elif nan:
                yield "log_probs", head, "nan"

    def _in_log_probs(self, heads: Sequence[str], nan: Sequence[Any], inf: Sequence[Any]) -> Found:
        for place, head in enumerate(heads):
            if nan[place] and head not in self.infinite:
                yield "log_probs", head, "nan"
            if inf[place]:
                yield "log_probs", head, "inf"

    def _in_minibatch(self, given: policy.Given, values: Array) -> Found:
        count = len(given.heads)
        table = values[: count * len(policy.PER_HEAD)].reshape(len(policy.PER_HEAD), count)
        yield from self._in_log_probs(given.heads, table[-2].tolist(), table[-1].tolist())
        joint = dict(zip(policy.JOINT, values[table.size :].tolist(), strict=True))
        if joint["steps"] and math.isinf(joint["ratio_max"]):
            yield "ratio", None, "inf"

    def _in_layers(self, source: str, indices: Iterable[int], norms: Array) -> Found:
        kinds: dict[tuple[str, str], None] = {}
        for index, norm in zip(indices, norms.tolist(), strict=True):
            if not math.isfinite(norm):
                kinds[self._layout.layer(index), kind_of(norm)] = None
        for kind in sorted({kind for _, kind in kinds}):
            yield source, None, kind
        for layer, kind in list(kinds)[:MOST_LAYERS]:
            yield source, layer, kind


def kind_of(value: float) -> str:
    return "nan" if math.isnan(value) else "inf"
