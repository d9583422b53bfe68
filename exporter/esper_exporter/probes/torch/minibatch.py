"""A policy's statistics on the device: all minibatches of an update at once, sums and bounds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNDERFLOW = -50.0
"""Log-probabilities below it are counted: they become NaN next (plan, C.6)."""

PER_HEAD = (
    *("ratio_max", "active", "learnable", "entropy", "choice_entropy", "kl", "clipped"),
    *("nan", "inf"),
)
JOINT = (
    *("steps", "forced", "ratio_offset", "ratio_offset_square", "kl", "kl_reverse"),
    *("clipped_above", "clipped_below", "underflows"),
    *("all_steps", "ratio_min", "ratio_max", "kl_max", "log_prob_min", "log_prob_max"),
)
MOST_VALUES = 1 << 22
"""The most values that wait to be measured: 16 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The arrays of a minibatch; all (heads, steps) or, ``valid``, (steps,)."""

    log_probs: Tensor
    old_log_probs: Tensor
    entropy: Tensor
    active: Tensor
    learnable: Tensor | None
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Given:
    """The arrays that a loop passes: minibatches with the same ones are measured together."""

    heads: tuple[str, ...]
    with_old: tuple[str, ...]
    with_entropy: tuple[str, ...]
    active: bool
    learnable: bool
    valid: bool


def given_of(
    heads: Iterable[str],
    log_probs: Collection[str],
    old_log_probs: Collection[str],
    entropy: Collection[str],
    active: bool,
    learnable: bool,
    valid: bool,
) -> Given:
    """The arrays of a minibatch, by the heads that each kind of value has."""
    present = tuple(head for head in heads if head in log_probs)
    old = tuple(head for head in present if head in old_log_probs)
    spread = tuple(head for head in present if head in entropy)
    return Given(present, old, spread, active, learnable, valid)


def stack_values(
    given: Given,
    log_probs: Mapping[str, Tensor],
    old_log_probs: Mapping[str, Tensor],
    entropy: Mapping[str, Tensor],
) -> Tensor | None:
    """The values, a row each: (rows, steps) float32; None without any."""
    rows = [log_probs[head] for head in given.heads]
    if not rows or rows[0].numel() == 0:
        return None
    rows += [old_log_probs[head] for head in given.with_old]
    rows += [entropy[head] for head in given.with_entropy]
    if rows[0].dim() != 1:
        rows = [row.reshape(-1) for row in rows]
    return torch.stack(rows).float()


def stack_flags(
    heads: Sequence[str],
    active: Mapping[str, Tensor] | None,
    learnable: Mapping[str, Tensor] | None,
    valid: Tensor | None,
) -> Tensor:
    """Flags by head, then whether a step is valid: (rows, steps) bool."""
    rows = [
        given[head].reshape(-1).bool()
        for given in (active, learnable)
        if given is not None
        for head in heads
    ]
    if valid is not None:
        rows.append(valid.reshape(-1).bool())
    return torch.stack(rows)


def steps_of(given: Given, values: Tensor, flags: Tensor | None) -> Steps:
    """The arrays of stacked values and flags."""
    count = len(given.heads)
    new = values[:count]
    old, entropy = new, torch.zeros_like(new)
    if given.with_old:
        place = [given.heads.index(head) for head in given.with_old]
        own = values[count : count + len(place)]
        old = own if len(place) == count else new.index_copy(0, _index(place, new), own)
    if given.with_entropy:
        place = [given.heads.index(head) for head in given.with_entropy]
        own = values[count + len(given.with_old) :]
        entropy = own if len(place) == count else entropy.index_copy(0, _index(place, new), own)
    seen = torch.ones(new.shape[1], dtype=torch.bool, device=new.device)
    matters, chosen = seen.expand_as(new), None
    if flags is not None:
        if given.valid:
            seen = flags[-1]
        matters = (flags[:count] if given.active else matters) & seen
        if given.learnable:
            begin = count if given.active else 0
            chosen = flags[begin : begin + count] & seen
    return Steps(new, old, entropy, matters, chosen, seen)


def _index(place: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(place, device=like.device)


def nonfinite(values: Tensor, heads: int, valid: Tensor | None) -> tuple[list[bool], list[bool]]:
    """Whether each head's log-probabilities are NaN, and infinite. Waits for the device."""
    new = values[:heads]
    seen = torch.ones_like(new[0], dtype=torch.bool) if valid is None else valid
    return (new.isnan() & seen).any(1).tolist(), (new.isinf() & seen).any(1).tolist()


def logits_kinds(logits: Tensor) -> Tensor:
    """Whether logits (…, choices) have NaN, and whether they are infinite: two counts.

    Minus infinity masks a choice that is not legal; for all choices of a step it is a fault.
    """
    below = logits.isneginf().all(-1).sum()
    return torch.stack([logits.isnan().sum(), logits.isposinf().sum() + below])


def measure(steps: Steps, clip_ratio: float) -> Tensor:
    """The vector: `PER_HEAD` for each head (a row a name), then `JOINT`.

    Ratios are new over old probability; a head counts in the steps in which it mattered
    (``active``), and the joint ratio is the product of those, taken as a sum of logarithms. KL is
    Schulman's estimator, (r − 1) − log r over steps drawn by the old policy; reversed, KL(new ‖
    old), it is r log r − (r − 1). Nothing here waits for the device.
    """
    # In float64: of a ratio near 1 the KL is what remains after two numbers near 1 cancel.
    new, active, valid = steps.log_probs.double(), steps.active, steps.valid
    zero = torch.zeros((), device=new.device, dtype=new.dtype)
    log_ratio = torch.where(active, new - steps.old_log_probs.double(), zero)
    offset = log_ratio.expm1()
    clipped = offset.abs() > clip_ratio
    entropy = torch.where(valid, steps.entropy.double(), zero)
    learnable = valid.expand_as(new) if steps.learnable is None else steps.learnable
    largest = torch.where(active, offset, -torch.inf).amax(1) + 1.0
    sums = (
        *(active, learnable, entropy, torch.where(learnable, entropy, zero)),
        *(offset - log_ratio, clipped, new.isnan() & valid, new.isinf() & valid),
    )
    joint_log = log_ratio.sum(0)
    joint = joint_log.expm1()
    kl = joint - joint_log
    joint_sums = (
        *(valid, valid & ~learnable.any(0), joint, joint.square(), kl),
        *((joint + 1.0) * joint_log - joint, joint > clip_ratio, joint < -clip_ratio),
        ((new < UNDERFLOW) & active).any(0),
    )
    bounds = (
        torch.full((), float(valid.numel()), device=new.device, dtype=torch.float64),
        torch.where(valid, joint, torch.inf).amin() + 1.0,
        torch.where(valid, joint, -torch.inf).amax() + 1.0,
        kl.amax(),
        torch.where(active, new, torch.inf).amin(),
        torch.where(active, new, -torch.inf).amax(),
    )
    return torch.cat([largest, _totals(sums).reshape(-1), _totals(joint_sums), torch.stack(bounds)])


def _totals(rows: Sequence[Tensor]) -> Tensor:
    """Sums over the steps, in one go: a handful of large operations costs less than many small."""
    return torch.stack([row.double() for row in rows]).sum(-1)
