"""One minibatch's policy statistics on the device: all heads at once, sums and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNDERFLOW = -50.0
"""Log-probabilities below it are counted: the next thing they become is NaN (plan, C.6)."""

PER_HEAD = (
    *("ratio_max", "active", "learnable", "entropy", "choice_entropy", "kl", "clipped"),
    *("nan", "inf"),
)
JOINT = (
    *("steps", "forced", "ratio_offset", "ratio_offset_square", "kl", "kl_reverse"),
    *("clipped_above", "clipped_below", "underflows"),
    *("all_steps", "ratio_min", "ratio_max", "kl_max", "log_prob_min", "log_prob_max"),
    *("policy_loss", "value_loss", "entropy_loss"),
)


@dataclass(frozen=True, slots=True)
class Steps:
    """What a minibatch is made of; all (heads, steps) or, ``valid``, (steps,)."""

    log_probs: Tensor
    old_log_probs: Tensor
    entropy: Tensor
    active: Tensor
    learnable: Tensor | None
    valid: Tensor


def stacked(by_head: Mapping[str, Tensor], heads: Sequence[str]) -> Tensor:
    """One row a head. Raises KeyError for a head that is missing."""
    return torch.stack([by_head[head].detach().reshape(-1) for head in heads])


def steps_of(
    heads: Sequence[str],
    log_probs: Mapping[str, Tensor],
    old_log_probs: Mapping[str, Tensor],
    entropy: Mapping[str, Tensor],
    active: Mapping[str, Tensor] | None,
    learnable: Mapping[str, Tensor] | None,
    valid: Tensor | None,
) -> Steps:
    """A minibatch in the form that is measured; half precision becomes float32 here."""
    new = stacked(log_probs, heads).float()
    seen = (
        torch.ones(new.shape[1], dtype=torch.bool, device=new.device)
        if valid is None
        else valid.detach().reshape(-1).bool()
    )
    matters = seen.expand_as(new) if active is None else stacked(active, heads).bool() & seen
    chosen = None if learnable is None else stacked(learnable, heads).bool() & seen
    return Steps(
        new,
        stacked(old_log_probs, heads).float(),
        stacked(entropy, heads).float(),
        matters,
        chosen,
        seen,
    )


def measure(steps: Steps, clip_ratio: float, losses: Sequence[Tensor]) -> Tensor:
    """The vector: `PER_HEAD` for each head (a row a name), then `JOINT`.

    Ratios are new over old probability; a head counts in the steps in which it mattered
    (``active``), and the joint ratio is the product of those, taken as a sum of logarithms. KL is
    Schulman's estimator, (r − 1) − log r over steps drawn by the old policy; reversed, KL(new ‖
    old), it is r log r − (r − 1). Nothing here waits for the device.
    """
    new, active, valid = steps.log_probs, steps.active, steps.valid
    zero = torch.zeros((), device=new.device)
    log_ratio = torch.where(active, new - steps.old_log_probs, zero)
    offset = log_ratio.expm1()
    clipped = offset.abs() > clip_ratio
    entropy = torch.where(valid, steps.entropy, zero)
    learnable = valid.expand_as(new) if steps.learnable is None else steps.learnable
    largest = torch.where(active, offset, -torch.inf).amax(1).double() + 1.0
    sums = (
        *(active, learnable, entropy, torch.where(learnable, entropy, zero)),
        *(offset - log_ratio, clipped, new.isnan() & valid, new.isinf() & valid),
    )
    joint_log = log_ratio.sum(0)
    joint = joint_log.expm1()
    kl = joint - joint_log
    wide = joint.double()
    joint_sums = (
        *(valid, valid & ~learnable.any(0), wide, wide.square(), kl),
        *((joint + 1.0) * joint_log - joint, joint > clip_ratio, joint < -clip_ratio),
        ((new < UNDERFLOW) & active).any(0),
    )
    bounds = (
        torch.full((), float(valid.numel()), device=new.device, dtype=torch.float64),
        torch.where(valid, joint, torch.inf).amin().double() + 1.0,
        torch.where(valid, joint, -torch.inf).amax().double() + 1.0,
        kl.amax().double(),
        torch.where(active, new, torch.inf).amin().double(),
        torch.where(active, new, -torch.inf).amax().double(),
        *(loss.detach().reshape(()).double() for loss in losses),
    )
    return torch.cat(
        [
            largest,
            _totals(sums).reshape(-1),
            _totals(joint_sums),
            torch.stack(bounds),
        ]
    )


def _totals(rows: Sequence[Tensor]) -> Tensor:
    """Sums over the steps, in one go: a handful of large operations costs less than many small."""
    return torch.stack([row.double() for row in rows]).sum(-1)
