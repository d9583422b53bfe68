"""From gradient norms and loss scales on the host to the fields of a policy update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from esper_exporter import health
from esper_exporter.probes.torch.gradients import DEAD

Array = np.ndarray[Any, np.dtype[np.float64]]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters' names, and which of them a head has."""

    names: tuple[str, ...]
    heads: Mapping[str, tuple[int, ...]]

    def layer(self, index: int) -> str:
        """The module that a parameter belongs to."""
        return self.names[index].rpartition(".")[0] or self.names[index]


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: the norm before clipping, and each tensor's norm (NaN: see `seen`)."""

    total: float
    norms: Array
    indices: tuple[int, ...]
    max_norm: float | None


def gradient_fields(layout: Layout, steps: Sequence[Step]) -> Fields:
    """Gradient flow over an update's optimizer steps. Of several steps the largest norm counts,
    of the whole as of each tensor, so that no step's explosion is lost."""
    norms = np.zeros(len(layout.names))
    present = np.zeros(len(layout.names), dtype=bool)
    for step in steps:
        where = list(step.indices)
        norms[where] = np.maximum(norms[where], step.norms)
        present[where] = True
    totals = np.array([step.total for step in steps])
    clipped = [_after(step) for step in steps]
    limits = [step.max_norm for step in steps]
    largest = float(np.max(totals))
    worst = int(np.argmax(totals)) if largest == largest else int(np.argmax(np.isnan(totals)))
    found: Fields = {
        "pre_clip_grad_norm": largest,
        "grad_norm": clipped[worst],
        "nan_grad_count": int(np.isnan(norms[present]).sum()),
        "inf_grad_count": int(np.isinf(norms[present]).sum()),
        "dead_layers": int((norms[present] < DEAD).sum()),
        "exploding_layers": int((norms[present] > health.GRAD_NORM_CRITICAL).sum()),
        "layer_gradient_health": {
            name: _health(float(norms[i])) for i, name in enumerate(layout.names) if present[i]
        },
    }
    if all(limit is not None for limit in limits):
        pairs = [(step.total, limit) for step, limit in zip(steps, limits, strict=True) if limit]
        found["grad_clip_fraction"] = sum(t > m for t, m in pairs) / len(steps)
        after = [value / limit for value, (_, limit) in zip(clipped, pairs, strict=False)]
        found["gradient_utilization"] = float(np.mean(after)) if after else None
    if len(steps) > 1 and largest > 0 and math.isfinite(largest):
        found["gradient_cv"] = float(totals.std() / totals.mean())
    layers: dict[str, float] = {}
    for i in np.flatnonzero(present):
        layer = layout.layer(int(i))
        layers[layer] = math.hypot(layers.get(layer, 0.0), float(norms[i]))
    found["grad_norm_per_layer"] = layers
    smallest = min(layers.values(), default=0.0)
    if smallest > 0:
        found["grad_norm_ratio"] = max(layers.values()) / smallest
    broken = {layout.layer(int(i)) for i in np.flatnonzero(present & ~np.isfinite(norms))}
    found["grad_nan_layers"] = tuple(sorted(broken))
    for head, mine in layout.heads.items():
        own = [i for i in mine if present[i]]
        if not own:
            found[f"head_{head}_gradient_state"] = "missing"
            continue
        norm = float(np.linalg.norm(norms[own]))
        found[f"head_{head}_grad_norm"] = norm
        found[f"head_{head}_gradient_state"] = "finite" if math.isfinite(norm) else "nonfinite"
    return found


def _after(step: Step) -> float:
    """The norm that clipping left."""
    if step.max_norm is None:
        return step.total
    return step.total * min(1.0, step.max_norm / (step.total + 1e-6))


def _health(norm: float) -> float:
    """1 for a norm between dead and exploding, falling to 0 outside; 0 for NaN and Inf."""
    if not math.isfinite(norm):
        return 0.0
    return min(1.0, norm / DEAD, health.GRAD_NORM_CRITICAL / max(norm, 1e-30))


def scaler_fields(scales: Sequence[float]) -> Fields:
    """AMP loss scales in the order they were seen: a fall is an overflow."""
    if not scales:
        return {}
    changes = [after - before for before, after in pairwise(scales)]
    moved = [change for change in changes if change]
    state = "stable"
    if moved:
        state = "growing" if moved[-1] > 0 else "decaying"
    return {
        "loss_scale": scales[-1],
        "loss_scale_updates": len(moved),
        "amp_overflow_count": sum(change < 0 for change in moved),
        "amp_overflow_detected": any(change < 0 for change in moved),
        "grad_scaler_state": state,
    }
