"""Gradients are read once: the norms that clipping needs are the telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn

DEAD = 1e-6
"""A parameter tensor with a gradient norm below it learns nothing."""

SURELY_BELOW = 0.99
"""A norm below this share of the limit is not clipped, however the limit's share is rounded."""

FOREACH_DEVICES = ("cpu", "cuda")

_kind = attrgetter("dtype", "layout", "device")


@dataclass(frozen=True, slots=True)
class Clipped:
    """One clipping: the norm before it, and each tensor's (of this rank's shard, if sharded)."""

    total: Tensor
    norms: Tensor
    indices: tuple[int, ...]
    gradients: tuple[Tensor, ...]
    uniform: bool
    """Whether all are dense, of one type and on one CPU or CUDA device."""
    sharded: bool = False
    """Whether the norms cover this rank's shard only."""
    covers: bool = False
    """Whether a finite total means that every norm is finite."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a DTensor, whose norm needs all ranks."""
    return hasattr(tensor, "to_local") and hasattr(tensor, "placements")


def measure(
    parameters: Sequence[tuple[int, Tensor]],
    norm_type: float = 2.0,
    total: Tensor | None = None,
    exact: bool = False,
) -> Clipped | None:
    """The norms of the gradients of numbered parameters; None if there is no gradient.

    ``total`` is the norm of the whole where it is known. Else it is computed exactly as
    ``torch.nn.utils.clip_grad_norm_`` takes it; of sharded gradients by the one reduction that
    clipping them needs anyway. ``exact`` sums in float64; clipping may not go by such norms.
    """
    chosen = [(i, gradient) for i, p in parameters if (gradient := p.grad) is not None]
    if not chosen:
        return None
    indices: tuple[int, ...]
    gradients: tuple[Tensor, ...]
    indices, gradients = zip(*chosen, strict=True)
    # Types first: asking a plain tensor for an attribute that it lacks costs as much as a norm.
    plain = set(map(type, gradients)) <= {Tensor, nn.Parameter}
    sharded = not plain and any(is_sharded(gradient) for gradient in gradients)
    local = tuple(_local(gradient) for gradient in gradients) if sharded else gradients
    uniform = len(set(map(_kind, local))) == 1
    uniform = uniform and not local[0].is_sparse and local[0].device.type in FOREACH_DEVICES
    norms = _norms(local, norm_type, uniform, torch.float64 if exact else None)
    covers = total is None and norm_type > 0
    if total is None:
        if sharded or not uniform:
            # Of mixed types torch adds up the norms type by type: the sum's last bit depends on it.
            total = torch.nn.utils.get_total_norm(gradients, norm_type)
            if is_sharded(total):
                total = total.full_tensor()
        else:
            total = torch.linalg.vector_norm(norms, norm_type)
    return Clipped(total, norms, indices, local, uniform, sharded, covers)


def scale(clipped: Clipped, max_norm: float, *, known: bool) -> None:
    """Clip uniform gradients in place to ``max_norm``, by the factor of
    ``torch.nn.utils.clip_grad_norm_``. Where the norm is ``known``, nothing has to wait for it, and
    gradients well below the limit are left alone: torch multiplies them by 1."""
    if known and clipped.total.item() < SURELY_BELOW * max_norm:
        return
    factor = torch.clamp(max_norm / (clipped.total + 1e-6), max=1.0)
    torch._foreach_mul_(list(clipped.gradients), factor)


def _local(gradient: Tensor) -> Tensor:
    if is_sharded(gradient):
        shard: Tensor = gradient.to_local()
        return shard
    return gradient


def _norms(
    gradients: Sequence[Tensor],
    norm_type: float,
    uniform: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Each tensor's norm on one device. Half precision norms are computed in that precision."""
    if uniform:
        return torch.stack(torch._foreach_norm(list(gradients), norm_type, dtype))
    device = gradients[0].device
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return torch.stack(
        [torch.linalg.vector_norm(g, norm_type).to(device, dtype or torch.float32) for g in dense]
    )


def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """Each tensor's 2-norm, on the first one's device."""
    kinds = {(t.device, t.dtype) for t in tensors}
    uniform = len(kinds) == 1 and tensors[0].device.type in FOREACH_DEVICES
    return _norms(tensors, 2.0, uniform)


@dataclass(frozen=True, slots=True)
class NonfiniteTensor:
    """The result of a closer look at a gradient with a non-finite norm."""

    index: int
    nan: bool
    inf: bool
    norm: float
    """The norm in float64: finite where only the narrow sum had overflowed."""


def look_closer(clipped: Clipped, unscaled: Iterable[int]) -> list[NonfiniteTensor]:
    """Distinguish NaN, Inf and mere overflow in these tensors. Waits for the device."""
    found = []
    for place in unscaled:
        gradient = clipped.gradients[place]
        found.append(
            NonfiniteTensor(
                clipped.indices[place],
                bool(gradient.isnan().any()),
                bool(gradient.isinf().any()),
                float(torch.linalg.vector_norm(gradient.double())),
            )
        )
    return found


def zero_counts(gradients: Sequence[Tensor]) -> Tensor:
    """The number of entries that are exactly 0, and of all entries."""
    zeros = torch.stack([(gradient == 0).sum() for gradient in gradients]).sum()
    return torch.stack([zeros, zeros.new_full((), sum(g.numel() for g in gradients))])
