"""One minibatch's policy statistics on the device: all heads at once, sums and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNDERFLOW = -50.0
"""Log-probabilities below it are counted: the next thing they become is NaN (plan, C.6)."""

PER_HEAD = (
    *("active", "learnable", "entropy", "choice_entropy", "ratio_max", "kl", "clipped"),
    *("nan", "inf"),
)
JOINT = (
    *("steps", "all_steps", "forced", "ratio_offset", "ratio_offset_square"),
    *("ratio_min", "ratio_max", "kl", "kl_max", "kl_reverse", "clipped_above", "clipped_below"),
    *("underflows", "log_prob_min", "log_prob_max"),
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
    per_head = (
        _total(active),
        _total(learnable),
        _total(entropy),
        _total(torch.where(learnable, entropy, zero)),
        torch.where(active, offset, -torch.inf).amax(1).double() + 1.0,
        _total(offset - log_ratio),
        _total(clipped),
        _total(new.isnan() & valid),
        _total(new.isinf() & valid),
    )
    joint_log = log_ratio.sum(0)
    joint = joint_log.expm1()
    kl = joint - joint_log
    reverse = torch.where(valid, (joint + 1.0) * joint_log - joint, zero)
    wide = joint.double()
    forced = valid & ~learnable.any(0)
    together = (
        valid.sum(),
        torch.full((), float(valid.numel()), device=new.device, dtype=torch.float64),
        forced.sum(),
        wide.sum(),
        wide.square().sum(),
        torch.where(valid, joint, torch.inf).amin(0).double() + 1.0,
        torch.where(valid, joint, -torch.inf).amax(0).double() + 1.0,
        kl.sum(dtype=torch.float64),
        kl.amax(),
        reverse.sum(dtype=torch.float64),
        (joint > clip_ratio).sum(),
        (joint < -clip_ratio).sum(),
        ((new < UNDERFLOW) & active).any(0).sum(),
        torch.where(active, new, torch.inf).amin(),
        torch.where(active, new, -torch.inf).amax(),
        *(loss.detach() for loss in losses),
    )
    return torch.cat(
        [
            torch.stack(per_head).reshape(-1),
            torch.stack([each.reshape(()).double() for each in together]),
        ]
    )


def _total(values: Tensor) -> Tensor:
    """Sum over the steps, one a head."""
    return values.sum(1, dtype=torch.float64)
