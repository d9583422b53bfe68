"""A rollout's statistics on the CPU: those of `rollout`, by numpy.

A torch operation on a few thousand numbers costs more to call than to compute, and numpy's half as
much. The training thread waits for all of them here; a device has them to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from esper_exporter.probes.torch.rollout import MOMENTS, QUANTILES

Array = np.ndarray[Any, Any]


def vectors(
    given: Mapping[str, Tensor],
    actions: Mapping[str, Tensor],
    choices: Mapping[str, int],
    valid: Tensor | None,
) -> Iterator[tuple[str, Array]]:
    """The rollout's vectors by kind, as `rollout.vectors` gives them. Steps that are not valid are
    left out first, which a device would have to wait for."""
    seen = slice(None) if valid is None else valid.reshape(-1).bool().numpy()
    flat = {kind: each.reshape(-1).double().numpy()[seen] for kind, each in given.items()}
    if "values" in flat and "returns" in flat:
        flat["errors"] = flat["values"] - flat["returns"]
        yield "covariance", covariance(flat["values"], flat["returns"])
    if flat:
        yield from zip(flat, moments(np.stack(list(flat.values()))), strict=True)
    if "returns" in flat:
        yield "quantiles", quantiles(flat["returns"])
    if choices:
        chosen = {head: actions[head].reshape(-1).long().numpy()[seen] for head in choices}
        yield "action_mix", action_mix(chosen, choices)
        if "op" in choices:
            yield "ops", shares(chosen["op"], choices["op"])


def moments(samples: Array) -> Array:
    """`MOMENTS` of each sample; (samples, steps) float64 in, a row each out."""
    count = samples.shape[1]
    found = np.zeros((len(samples), len(MOMENTS)))
    found[:, 0] = count
    with np.errstate(all="ignore"):
        mean = found[:, 1] = samples.sum(1) / count
        centred = samples - mean[:, None]
        square = centred * centred
        found[:, 2] = square.sum(1)
        found[:, 3] = np.multiply(square, centred, out=centred).sum(1)
        found[:, 4] = np.multiply(square, square, out=square).sum(1)
        found[:, 2:5] /= count
        found[:, 5] = samples.min(1, initial=np.inf)
        found[:, 6] = samples.max(1, initial=-np.inf)
        found[:, 7] = np.count_nonzero(samples > 0, 1)
        if count and not np.isfinite(mean).all():
            found[:, 8] = np.count_nonzero(~np.isfinite(samples), 1)
            found[:, 9] = np.count_nonzero(np.isnan(samples), 1)
    return found


def quantiles(values: Array) -> Array:
    """`QUANTILES` of (steps,) values, interpolated linearly."""
    if not len(values):
        return np.full(len(QUANTILES), np.nan)
    where = (len(values) - 1) * np.array(QUANTILES)
    low, high = np.floor(where).astype(int), np.ceil(where).astype(int)
    ordered = np.partition(values, (*low, *high))
    below, above = ordered[low], ordered[high]
    with np.errstate(all="ignore"):
        found: Array = np.where(above == below, below, below + (where - low) * (above - below))
    return found


def covariance(one: Array, other: Array) -> Array:
    """Population covariance, shape (1,)."""
    count = len(one)
    with np.errstate(all="ignore"):
        product = (one - one.sum() / count) * (other - other.sum() / count)
        return np.array([product.sum() / count])


def action_mix(actions: Mapping[str, Array], choices: Mapping[str, int]) -> Array:
    """How many different combinations of actions there are, how often the commonest occurs, and of
    how many steps."""
    code: Array | None = None
    for head, count in choices.items():
        code = actions[head] if code is None else code * count + actions[head]
    assert code is not None
    if not len(code):
        return np.zeros(3)
    ordered = np.sort(code)
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    lengths = np.diff(ends, prepend=-1, append=len(code) - 1)
    return np.array([len(lengths), lengths.max(), len(code)], np.float64)


def shares(chosen: Array, choices: int) -> Array:
    """How often each choice was taken, as counts, shape (choices,)."""
    known = chosen[(chosen >= 0) & (chosen < choices)]
    return np.bincount(known, minlength=choices).astype(np.float64)
