"""A policy's statistics on the CPU: those of `minibatch`, by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from esper_exporter.probes.torch.minibatch import JOINT, PER_HEAD, UNDERFLOW, Given

Array = np.ndarray[Any, Any]


def measure(given: Given, values: Array, flags: Array | None, clip_ratio: float) -> Array:
    """The vector that `minibatch.measure` gives of `minibatch.stack_values` and ``stack_flags``.

    Steps that are not valid are left out first, which a device would have to wait for.
    """
    count, everything = len(given.heads), values.shape[1]
    active = learnable = None
    if flags is not None:
        if given.valid:
            values, flags = values[:, flags[-1]], flags[:, flags[-1]]
        active = flags[:count] if given.active else None
        begin = count if given.active else 0
        learnable = flags[begin : begin + count] if given.learnable else None
    new, steps = values[:count].astype(np.float64), values.shape[1]
    head = dict.fromkeys(PER_HEAD, np.zeros(count))
    joint: dict[str, Any] = dict.fromkeys(JOINT, 0.0)
    joint["all_steps"], joint["steps"] = everything, steps
    with np.errstate(all="ignore"):
        old = new
        if given.with_old:
            old = _in_place(given, given.with_old, values[count:], new)
        log_ratio = new - old
        if active is not None:
            log_ratio = np.where(active, log_ratio, 0.0)
        offset = _expm1(log_ratio)
        seen = offset if active is None else np.where(active, offset, -np.inf)
        head["ratio_max"] = seen.max(1, initial=-np.inf) + 1.0
        head["active"] = _counts(active, count, steps)
        head["learnable"] = _counts(learnable, count, steps)
        if given.with_entropy:
            own = values[count + len(given.with_old) :]
            entropy = _in_place(given, given.with_entropy, own, np.zeros_like(new))
            head["entropy"] = head["choice_entropy"] = entropy.sum(1)
            if learnable is not None:
                head["choice_entropy"] = np.where(learnable, entropy, 0.0).sum(1)
        head["kl"] = (offset - log_ratio).sum(1)
        head["clipped"] = np.count_nonzero(np.abs(offset) > clip_ratio, 1)
        if not np.isfinite(new).all():
            head["nan"], head["inf"] = np.isnan(new).sum(1), np.isinf(new).sum(1)
        if learnable is not None:
            joint["forced"] = np.count_nonzero(~learnable.any(0))
        _whole(joint, log_ratio.sum(0), clip_ratio)
        smallest, largest = (
            (new, new)
            if active is None
            else (np.where(active, new, np.inf), np.where(active, new, -np.inf))
        )
        joint["log_prob_min"] = smallest.min(initial=np.inf)
        joint["log_prob_max"] = largest.max(initial=-np.inf)
        if not joint["log_prob_min"] >= UNDERFLOW:
            joint["underflows"] = np.count_nonzero((smallest < UNDERFLOW).any(0))
    return np.concatenate([*head.values(), np.array(list(joint.values()), np.float64)])


def _whole(joint: dict[str, Any], log_ratio: Array, clip_ratio: float) -> None:
    """The statistics of the joint ratio; ``log_ratio`` is (steps,)."""
    offset = _expm1(log_ratio)
    kl = offset - log_ratio
    joint["ratio_offset"] = offset.sum()
    joint["ratio_offset_square"] = (offset * offset).sum()
    joint["kl"] = kl.sum()
    joint["kl_reverse"] = ((offset + 1.0) * log_ratio - offset).sum()
    joint["clipped_above"] = np.count_nonzero(offset > clip_ratio)
    joint["clipped_below"] = np.count_nonzero(offset < -clip_ratio)
    joint["ratio_min"] = offset.min(initial=np.inf) + 1.0
    joint["ratio_max"] = offset.max(initial=-np.inf) + 1.0
    joint["kl_max"] = kl.max(initial=0.0)


def _in_place(given: Given, heads: Sequence[str], rows: Array, otherwise: Array) -> Array:
    """The rows of these heads at the places of theirs, the others as in ``otherwise``; float64."""
    if len(heads) == len(given.heads):
        return rows[: len(heads)].astype(np.float64)
    found = otherwise.copy()
    found[[given.heads.index(head) for head in heads]] = rows[: len(heads)]
    return found


def _counts(flags: Array | None, heads: int, steps: int) -> Array:
    """In how many steps each head's flag is set; without flags in all."""
    return np.full(heads, float(steps)) if flags is None else np.count_nonzero(flags, 1)


def _expm1(values: Array) -> Array:
    # Where numpy has no vector instructions for it, torch has; both share the memory.
    found: Array = torch.from_numpy(values).expm1().numpy()
    return found
