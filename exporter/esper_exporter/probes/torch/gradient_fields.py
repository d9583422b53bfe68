"""From gradient norms and loss scales on the host to the fields of a policy update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from esper_exporter import health
from esper_exporter.probes.torch.gradients import DEAD

Array = np.ndarray[Any, np.dtype[np.float64]]
Fields = dict[str, Any]

AMBIGUOUS = 1e-3
"""A norm this close to the limit, seen by the optimizer only, may be a clipped one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters' names, and those of each head."""

    names: tuple[str, ...]
    heads: Mapping[str, tuple[int, ...]]

    def layer(self, index: int) -> str:
        """The module that a parameter belongs to."""
        return self.names[index].rpartition(".")[0] or self.names[index]

    def layers(self, indices: Iterable[int]) -> tuple[str, ...]:
        """The modules of these parameters, sorted."""
        return tuple(sorted({self.layer(index) for index in indices}))


@dataclass(slots=True)
class Part:
    """One measurement: a clipping, or an optimizer's gradients without one."""

    step: int
    indices: tuple[int, ...]
    max_norm: float | None
    """The norm it is clipped to; None: it is not clipped, or was before."""
    before_clipping: bool
    scaled: bool
    sharded: bool
    total: float = math.nan
    """The norm that the clipping goes by, where the host knows it at once."""


class Step:
    """One optimizer step: each parameter tensor's norm, and that of all before and after."""

    def __init__(self) -> None:
        self.finite = True
        """Whether each tensor's norm is finite."""
        self.max_norm: float | None = None
        self.certain = True
        """Whether the norm before clipping is known."""
        self.clipped = False
        self.sharded = False
        self._measured: list[tuple[Sequence[int], Array]] = []
        self._squares = 0.0
        self._squares_after = 0.0

    def add(self, part: Part, total: float, norms: Array, limit: float | None) -> None:
        """``total`` is the norm that the clipping goes by, ``limit`` what the loop says it clips
        to."""
        mine = math.sqrt(norms.dot(norms))
        factor = 1.0
        if part.max_norm is not None:
            factor = min(1.0, part.max_norm / (total + 1e-6)) if total == total else math.nan
            self.max_norm = part.max_norm
            self.clipped = self.clipped or not total <= part.max_norm
        elif not part.before_clipping and limit is not None:
            self.certain = self.certain and not abs(mine / limit - 1.0) < AMBIGUOUS
        self._measured.append((part.indices, norms))
        self.finite = self.finite and math.isfinite(mine)
        self.sharded = self.sharded or part.sharded
        self._squares += mine * mine if not part.sharded else total * total
        after = (mine if not part.sharded else total) * factor
        self._squares_after += after * after

    @property
    def norms(self) -> dict[int, float]:
        """Each parameter tensor's norm."""
        found: dict[int, float] = {}
        for indices, norms in self._measured:
            found.update(zip(indices, norms.tolist(), strict=True))
        return found

    @property
    def total(self) -> float:
        """Norm of the policy's gradient before clipping."""
        return math.sqrt(self._squares) if self._squares == self._squares else math.nan

    @property
    def after(self) -> float:
        """The norm after clipping."""
        after = self._squares_after
        return math.sqrt(after) if after == after else math.nan


def gradient_fields(layout: Layout, steps: Sequence[Step], limit: float | None) -> Fields:
    """Gradient flow over an update's optimizer steps.

    All norms are those of one step, the one with the largest norm (NaN is larger than any); what
    was not finite is named for any step. ``limit`` is the trainer's clipping norm.
    """
    totals = np.array([step.total for step in steps])
    place = int(np.argmax(totals))  # of NaN the first
    worst = steps[place]
    by_tensor = worst.norms
    norms = np.array(list(by_tensor.values()))
    broken = [step.norms for step in steps if not step.finite]
    explosion = health.GRAD_NORM_CRITICAL if not limit else health.EXPLOSION_FACTOR * limit
    found: Fields = {
        "grad_norm": worst.after,
        "grad_norm_step": place + 1,
        "nan_grad_count": len(_where(broken, math.isnan)),
        "inf_grad_count": len(_where(broken, math.isinf)),
        "grad_nan_layers": layout.layers(_where(broken, lambda norm: not math.isfinite(norm))),
        "dead_layers": int((norms < DEAD).sum()),
        "exploding_layers": int((norms > explosion).sum()),
        "layer_gradient_health": {
            layout.names[i]: _health(norm, explosion) for i, norm in by_tensor.items()
        },
    }
    if worst.sharded:
        found["grad_norms_of_shard"] = True
    if worst.certain:
        found["pre_clip_grad_norm"] = worst.total
    limits = [step.max_norm for step in steps]
    if all(each is not None for each in limits):
        found["grad_clip_fraction"] = sum(step.clipped for step in steps) / len(steps)
        used = [
            min(step.total, most) / most
            for step, most in zip(steps, limits, strict=True)
            if most and math.isfinite(step.total)
        ]
        if used:
            found["gradient_utilization"] = float(np.mean(used))
    if len(steps) > 1 and np.isfinite(totals).all() and totals.mean() > 0:
        found["gradient_cv"] = float(totals.std() / totals.mean())
    layers: dict[str, float] = {}
    for i, norm in by_tensor.items():
        layer = layout.layer(i)
        layers[layer] = math.hypot(layers.get(layer, 0.0), norm)
    found["grad_norm_per_layer"] = layers
    learning = [norm for norm in layers.values() if norm > 0]
    if learning and all(map(math.isfinite, layers.values())):
        # A layer whose gradient is exactly 0 did not take part; the spread is of those that did.
        found["grad_norm_ratio"] = max(learning) / min(learning)
    for head, mine in layout.heads.items():
        own = [by_tensor[i] for i in mine if i in by_tensor]
        if not own:
            found[f"head_{head}_gradient_state"] = "missing"
            continue
        norm = math.hypot(*own)
        found[f"head_{head}_grad_norm"] = norm
        found[f"head_{head}_gradient_state"] = "finite" if math.isfinite(norm) else "nonfinite"
    return found


def _where(steps: Sequence[Mapping[int, float]], is_so: Callable[[float], bool]) -> set[int]:
    """The parameters whose norm fulfils a condition in any of these steps."""
    return {i for norms in steps for i, norm in norms.items() if is_so(norm)}


def _health(norm: float, explosion: float) -> float:
    """1 for a norm between dead and exploding, falling to 0 outside; 0 for NaN and Inf."""
    if not math.isfinite(norm):
        return 0.0
    return min(1.0, norm / DEAD, explosion / max(norm, 1e-30))


def scaler_fields(scales: Sequence[float]) -> Fields:
    """AMP loss scales in order: a lower scale means an overflow."""
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
