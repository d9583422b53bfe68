"""Each seed's contribution: accuracies with every subset of seeds, and their Shapley values."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from esper_exporter.demo.host_network import HostTrainer

MAX_FACTORIAL = 5
"""Up to this many seeds, test all subsets; beyond it all, none, and each one left out."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Accuracy (percent) by the enabled seeds; the measurement's time in milliseconds."""

    slot_ids: tuple[str, ...]
    accuracies: dict[tuple[bool, ...], float]
    strategy: str
    milliseconds: float


def counterfactual(trainer: HostTrainer, slot_ids: Sequence[str]) -> Matrix:
    """Measure a host with subsets of its seeds switched off."""
    begun = time.perf_counter()
    names = tuple(slot_ids)
    if len(names) <= MAX_FACTORIAL:
        strategy = "full_factorial"
        masks = list(product((False, True), repeat=len(names)))
    else:
        strategy = "ablation_only"
        every = (True,) * len(names)
        ablated = [(*every[:place], False, *every[place + 1 :]) for place in range(len(names))]
        masks = [(False,) * len(names), *ablated, every]
    accuracies = {}
    for mask in masks:
        off = frozenset(name for name, on in zip(names, mask, strict=True) if not on)
        accuracies[mask] = trainer.validate(off)[0]
    return Matrix(names, accuracies, strategy, (time.perf_counter() - begun) * 1000.0)


def shapley(matrix: Matrix) -> dict[str, dict[str, float]]:
    """Exact Shapley values (percent points) from a full factorial, else empty.

    ``std`` is the spread of a seed's marginal contributions over the orders in which seeds may
    join, ``n_samples`` how many contributions were measured.
    """
    count = len(matrix.slot_ids)
    if matrix.strategy != "full_factorial" or count == 0:
        return {}
    found = {}
    for place, name in enumerate(matrix.slot_ids):
        mean = square = 0.0
        for mask, without in matrix.accuracies.items():
            if mask[place]:
                continue
            others = sum(mask)
            orders = math.factorial(others) * math.factorial(count - others - 1)
            weight = orders / math.factorial(count)
            joined = (*mask[:place], True, *mask[place + 1 :])
            gain = matrix.accuracies[joined] - without
            mean += weight * gain
            square += weight * gain * gain
        found[name] = {
            "mean": mean,
            "std": math.sqrt(max(0.0, square - mean * mean)),
            "n_samples": float(2 ** (count - 1)),
        }
    return found
