"""A second opinion on a training loop: its tensors as they pass, and the fields computed from them.

Independent of the probe: gradients are read at torch's own seams, everything is numpy in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

Array = np.ndarray[Any, np.dtype[np.float64]]
Key = str | tuple[str, tuple[str, str]]
"""A metric, or a metric and the one label that distinguishes its samples."""


def array(tensor: Any) -> Array:
    """Flat, in float64."""
    if isinstance(tensor, Tensor):
        tensor = tensor.detach().cpu().numpy()
    return np.asarray(tensor, dtype=np.float64).reshape(-1)


@dataclass
class Recorded:
    """What one update had."""

    rollout: dict[str, Array] = field(default_factory=dict)
    actions: dict[str, Array] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    new: dict[str, list[Array]] = field(default_factory=dict)
    old: dict[str, list[Array]] = field(default_factory=dict)
    entropy: dict[str, list[Array]] = field(default_factory=dict)
    valid: list[Array] = field(default_factory=list)
    steps: list[dict[str, Array]] = field(default_factory=list)
    """Gradients by parameter before clipping, of each optimizer step."""
    limits: list[float] = field(default_factory=list)
    before: dict[str, Array] = field(default_factory=dict)
    after: dict[str, Array] = field(default_factory=dict)


class Recorder:
    """Records the updates of a module. `watching` sees gradients; a loop hands over the rest."""

    def __init__(self) -> None:
        self.last = Recorded()
        self._now: Recorded | None = None
        self._names: dict[int, str] = {}
        self._module: nn.Module | None = None
        self._clipped = False

    def _weights(self) -> dict[str, Array]:
        assert self._module is not None
        return {name: array(p).copy() for name, p in self._module.named_parameters()}

    def begin(self, module: nn.Module) -> Recorded:
        """An update begins."""
        self._module = module
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._now = Recorded(before=self._weights())
        return self._now

    def end(self) -> None:
        """It is over."""
        if self._now is not None:
            self._now.after = self._weights()
            self.last, self._now = self._now, None

    @property
    def now(self) -> Recorded | None:
        """The update that runs."""
        return self._now

    def see(self, parameters: Any) -> None:
        """The gradients of an optimizer step, before clipping."""
        found = {
            self._names[id(p)]: array(p.grad).copy()
            for p in parameters
            if p.grad is not None and id(p) in self._names
        }
        if found and self._now is not None:
            self._now.steps.append(found)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See torch's clipping and the optimizers' steps."""
        owner: Any = torch.nn.utils
        inner = owner.clip_grad_norm_

        def clip_grad_norm_(parameters: Any, max_norm: float, *args: Any, **more: Any) -> Any:
            given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            if self._now is not None:
                self.see(given)
                self._now.limits.append(float(max_norm))
                self._clipped = True
            return inner(given, max_norm, *args, **more)

        def stepping(optimizer: Any, _args: Any, _more: Any) -> None:
            if not self._clipped:
                self.see([p for group in optimizer.param_groups for p in group["params"]])
            self._clipped = False

        hook = register_optimizer_step_pre_hook(stepping)
        owner.clip_grad_norm_ = torch.nn.utils.clip_grad.clip_grad_norm_ = clip_grad_norm_
        try:
            yield
        finally:
            owner.clip_grad_norm_ = torch.nn.utils.clip_grad.clip_grad_norm_ = inner
            hook.remove()


def expected(
    seen: Recorded, clip_ratio: float, choices: Mapping[str, int | None]
) -> dict[Key, float]:
    """Every field that these tensors decide. ``choices`` are those of each head."""
    found: dict[Key, float] = {}
    for fields in (
        _losses(seen),
        _gradients(seen),
        _rollout(seen),
        _policy(seen, clip_ratio, choices),
    ):
        found |= {_named(key): float(number) for key, number in fields.items()}
    return found


def _named(key: Key) -> Key:
    if isinstance(key, str):
        return f"esper_tamiyo_{key}"
    return (f"esper_tamiyo_{key[0]}", key[1])


def _losses(seen: Recorded) -> dict[Key, float]:
    return {name: float(np.mean(values)) for name, values in seen.losses.items()}


def _norm(gradients: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(g @ g) for g in gradients.values()))


def _gradients(seen: Recorded) -> dict[Key, float]:
    if not seen.steps:
        return {}
    totals = [_norm(step) for step in seen.steps]
    worst = seen.steps[int(np.argmax(totals))]
    layers: dict[str, float] = {}
    for name, gradient in worst.items():
        layer = name.rpartition(".")[0] or name
        layers[layer] = math.hypot(layers.get(layer, 0.0), float(np.linalg.norm(gradient)))
    learning = [norm for norm in layers.values() if norm > 0]
    first = seen.steps[0]
    change = sum(float(((seen.after[n] - seen.before[n]) ** 2).sum()) for n in seen.before)
    found: dict[Key, float] = {
        "grad_norm_step": int(np.argmax(totals)) + 1,
        "layer_grad_norm_spread": max(learning) / min(learning),
        "grad_zero_ratio": sum(int((g == 0).sum()) for g in first.values())
        / sum(len(g) for g in first.values()),
        "weight_change_norm": math.sqrt(change),
        "nan_gradient_tensors": 0,
        "inf_gradient_tensors": 0,
        "grad_norm_pre_clip": max(totals),
    }
    found |= {("layer_grad_norm", ("layer", name)): norm for name, norm in layers.items()}
    if len(totals) > 1:
        found["gradient_cv"] = float(np.std(totals) / np.mean(totals))
    if seen.limits:
        limit = seen.limits[0]
        found["max_grad_norm"] = limit
        found["grad_clipped_ratio"] = float(np.mean([total > limit for total in totals]))
        found["gradient_utilization_ratio"] = float(
            np.mean([min(t, limit) / limit for t in totals])
        )
        worst_total = max(totals)
        found["grad_norm"] = worst_total * min(1.0, limit / (worst_total + 1e-6))
    else:
        found["grad_norm"] = max(totals)
    return found


def _rollout(seen: Recorded) -> dict[Key, float]:
    found: dict[Key, float] = {}
    values, returns = seen.rollout.get("values"), seen.rollout.get("returns")
    if values is not None and returns is not None:
        error = values - returns
        found |= {
            "value_mean": values.mean(),
            "value_std": values.std(),
            "value_min": values.min(),
            "value_max": values.max(),
            "return_mean": returns.mean(),
            "return_std": returns.std(),
            "value_prediction_error_mean": error.mean(),
            "value_prediction_error_std": error.std(),
            "explained_variance": 1.0 - error.var() / returns.var(),
            "value_target_correlation": float(np.corrcoef(values, returns)[0, 1]),
        }
    for kind, name in (("advantages", "advantage"), ("raw_advantages", "advantage_raw")):
        if (reported := seen.rollout.get(kind)) is not None:
            found |= {f"{name}_mean": reported.mean(), f"{name}_std": reported.std()}
    if seen.actions:
        rows = np.stack(list(seen.actions.values()), 1)
        _, counts = np.unique(rows, axis=0, return_counts=True)
        found |= {
            "action_diversity": len(counts),
            "dominant_action_ratio": counts.max() / len(rows),
        }
    return found


def _policy(
    seen: Recorded, clip_ratio: float, choices: Mapping[str, int | None]
) -> dict[Key, float]:
    found: dict[Key, float] = {}
    if not seen.new:
        return found
    valid = np.concatenate(seen.valid) > 0 if seen.valid else None

    def joined(pieces: list[Array]) -> Array:
        whole = np.concatenate(pieces)
        return whole if valid is None else whole[valid]

    new = {head: joined(pieces) for head, pieces in seen.new.items()}
    if seen.old:
        ratios = {head: new[head] - joined(pieces) for head, pieces in seen.old.items()}
        for head, log_ratio in ratios.items():
            offset = np.expm1(log_ratio)
            found["head_kl_nats", ("head", head)] = (offset - log_ratio).mean()
            found["head_clipped_ratio", ("head", head)] = (np.abs(offset) > clip_ratio).mean()
        joint = np.sum(list(ratios.values()), axis=0)
        offset = np.expm1(joint)
        clipped = np.abs(offset) > clip_ratio
        found |= {
            "kl_divergence_nats": (offset - joint).mean(),
            "kl_divergence_max_nats": (offset - joint).max(),
            "kl_reverse_nats": (np.exp(joint) * joint - offset).mean(),
            "clipped_ratio": clipped.mean(),
            "update_trust_region_violations": clipped.sum(),
            "importance_ratio_mean": np.exp(joint).mean(),
            "importance_ratio_min": np.exp(joint).min(),
            "importance_ratio_max": np.exp(joint).max(),
        }
    spread = {head: joined(pieces).mean() for head, pieces in seen.entropy.items()}
    for head, nats in spread.items():
        found["head_entropy_nats", ("head", head)] = nats
        if (most := choices.get(head)) is not None:
            found["head_entropy_ratio", ("head", head)] = nats / math.log(most)
    if spread and len(spread) == len(choices):
        found["policy_entropy_nats"] = sum(spread.values())
    found["log_prob_min_nats"] = min(log_prob.min() for log_prob in new.values())
    found["log_prob_max_nats"] = max(log_prob.max() for log_prob in new.values())
    return found


Close = Callable[[float | None, float], bool]


def agrees(shown: float | None, wanted: float) -> bool:
    """Whether the page has the value, to six digits; 0 within a float32 sum's reach."""
    return shown is not None and math.isclose(shown, wanted, rel_tol=2e-6, abs_tol=2e-7)
