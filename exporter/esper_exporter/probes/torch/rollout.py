"""A rollout's statistics on the device: values, returns, advantages, TD errors, actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

MOMENTS = ("count", "mean", "m2", "m3", "m4", "min", "max", "positive", "nonfinite", "nan")
"""Of a sample: size, mean, central moments (population), bounds, above 0, not finite, NaN."""

QUANTILES = (0.1, 0.5, 0.9)


def vectors(
    given: Mapping[str, Tensor],
    actions: Mapping[str, Tensor],
    choices: Mapping[str, int],
    valid: Tensor | None,
) -> Iterator[tuple[str, Tensor]]:
    """The rollout's vectors by kind: `MOMENTS` of each sample in ``given`` and of the critic's
    errors, what `covariance` and `quantiles` give, and of the heads in ``choices`` the actions'."""
    seen = None if valid is None else valid.reshape(-1).bool()
    flat = {kind: each.reshape(-1).double() for kind, each in given.items()}
    if "values" in flat and "returns" in flat:
        flat["errors"] = flat["values"] - flat["returns"]
        yield "covariance", covariance(flat["values"], flat["returns"], seen)
    if flat:
        rows = moments(torch.stack(list(flat.values())), seen).unbind()
        yield from zip(flat, rows, strict=True)
    if "returns" in flat:
        yield "quantiles", quantiles(flat["returns"], seen)
    if choices:
        yield "action_mix", action_mix(actions, choices, seen)
        if "op" in choices:
            yield "ops", shares(actions["op"], choices["op"], seen)


def moments(samples: Tensor, valid: Tensor | None) -> Tensor:
    """`MOMENTS` of the valid values of each sample, float64; (samples, steps) in, a row each out.

    NaN where there are none.
    """
    wide = samples.double()
    zero = torch.zeros((), dtype=wide.dtype, device=wide.device)
    seen = torch.ones_like(wide[0], dtype=torch.bool) if valid is None else valid
    count = seen.sum(dtype=torch.float64)
    mean = torch.where(seen, wide, zero).sum(1, keepdim=True) / count
    centred = torch.where(seen, wide - mean, zero)
    square = centred.square()
    return torch.stack(
        [
            count.expand(len(wide)),
            mean.squeeze(1),
            square.sum(1) / count,
            (square * centred).sum(1) / count,
            square.square().sum(1) / count,
            torch.where(seen, wide, torch.inf).amin(1),
            torch.where(seen, wide, -torch.inf).amax(1),
            ((wide > 0) & seen).sum(1, dtype=torch.float64),
            (~wide.isfinite() & seen).sum(1, dtype=torch.float64),
            (wide.isnan() & seen).sum(1, dtype=torch.float64),
        ],
        dim=1,
    )


def quantiles(values: Tensor, valid: Tensor | None) -> Tensor:
    """The 10th, 50th and 90th percentile of the valid values, interpolated linearly."""
    flat = values.detach().reshape(-1).double()
    if valid is None:
        ordered, count = flat.sort().values, torch.full((), flat.numel(), device=flat.device)
    else:
        ordered, count = torch.where(valid, flat, torch.inf).sort().values, valid.sum()
    where = torch.stack([(count - 1).clamp(min=0).double() * share for share in QUANTILES])
    low = where.floor()
    below = ordered[low.long()]
    above = ordered[where.ceil().long()]
    return torch.where(above == below, below, below + (where - low) * (above - below))


def covariance(one: Tensor, other: Tensor, valid: Tensor | None) -> Tensor:
    """Population covariance of the valid pairs, shape (1,)."""
    first, second = (each.detach().reshape(-1).double() for each in (one, other))
    seen = torch.ones_like(first, dtype=torch.bool) if valid is None else valid
    zero = torch.zeros((), dtype=first.dtype, device=first.device)
    count = seen.sum(dtype=torch.float64)
    first_mean = torch.where(seen, first, zero).sum() / count
    second_mean = torch.where(seen, second, zero).sum() / count
    product = (first - first_mean) * (second - second_mean)
    return (torch.where(seen, product, zero).sum() / count).reshape(1)


def action_mix(
    actions: Mapping[str, Tensor], choices: Mapping[str, int], valid: Tensor | None
) -> Tensor:
    """How many different combinations of actions there are, how often the commonest occurs, and of
    how many steps.

    By one sort and the lengths of its runs: counting by value would wait for the device.
    """
    code: Tensor | None = None
    for head, count in choices.items():
        chosen = actions[head].detach().reshape(-1).long()
        code = chosen if code is None else code * count + chosen
    assert code is not None
    if valid is not None:
        code = torch.where(valid, code, -1)
    ordered = code.sort().values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    place = torch.arange(ordered.numel(), device=ordered.device)
    begun = torch.where(first, place, 0).cummax(0).values
    counts = ordered >= 0
    length = torch.where(counts, place - begun + 1, 0)
    return torch.stack([(first & counts).sum(), length.amax(), counts.sum()])


def shares(chosen: Tensor, choices: int, valid: Tensor | None) -> Tensor:
    """How often each choice was taken, as counts, shape (choices,)."""
    flat = chosen.detach().reshape(-1, 1).long()
    hits = flat == torch.arange(choices, device=flat.device)
    return (hits if valid is None else hits & valid.reshape(-1, 1)).sum(0)
