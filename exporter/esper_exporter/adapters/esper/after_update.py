"""How far the finished update moved the policy: one more forward pass after its last step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.probes.torch.update import PolicyUpdate

Anchor = tuple[Any, Any, dict[str, Tensor]]
"""Arguments of the pass before the first step, and its log-probabilities by head."""


def measure_after(
    measured: PolicyUpdate,
    anchor: Anchor | None,
    data: Mapping[str, Tensor],
    valid: Tensor | None,
    evaluate: Callable[..., Any],
    clip_ratio: float,
) -> None:
    """KL of the finished update from the policy that acted, and the share of clipped steps.

    ``valid`` (environments, steps) is False where a step is padding. The network stays in train
    mode and has dropout, so the state of the random generators is kept.
    """
    if anchor is None or valid is None:
        return
    causal = _causal_masks(data)
    if causal is None:
        return
    args, more, before = anchor
    devices = [valid.device] if valid.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        after = evaluate(*args, **more).log_prob
    seen = valid.reshape(-1)
    active = torch.stack([causal[h].reshape(-1) for h in HEADS]) & seen
    rows = [after[h].reshape(-1).double() - before[h].reshape(-1).double() for h in HEADS]
    ratio = torch.where(active, torch.stack(rows), 0.0)
    kl = ratio.expm1() - ratio
    joint = ratio.sum(0)
    offset, count = joint.expm1(), seen.sum()
    clipped = (offset.abs() > clip_ratio) & seen
    measured.set(
        kl_divergence_after_update=(offset - joint).sum() / count,
        clip_fraction_after_update=clipped.sum().double() / count,
    )
    measured.set_by_head("head_kl_after_update", HEADS, kl.sum(1), active.sum(1))


def _causal_masks(data: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    from esper.leyline.causal_masks import compute_causal_masks  # type: ignore[import-not-found]

    found: Mapping[str, Tensor] = compute_causal_masks(data["effective_op_actions"])
    return found
