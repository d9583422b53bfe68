"""The AMP loss scales of the environments' scalers, between two policy updates."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from esper_exporter.probes.torch.gradient_fields import Array, Fields, scaler_fields

_ORDER = ("stable", "growing", "decaying")


class HostScales:
    """Each environment has a ``torch.amp.GradScaler`` for its host, or none has.

    Scales stay on their device. Not thread-safe: it belongs to the thread that trains.
    """

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Any, list[Tensor]] = WeakKeyDictionary()

    def before(self, env_state: Any) -> None:
        """A batch of this environment begins: the scale that a new scaler starts with."""
        scaler = env_state.scaler
        if scaler in self._seen:
            return
        now = getattr(scaler, "_scale", None)
        # Until its first batch a scaler has no tensor.
        start = torch.tensor(float(scaler.get_scale())) if now is None else now.detach().clone()
        self._seen[scaler] = [start]

    def after(self, env_state: Any) -> tuple[Tensor, Tensor]:
        """The batch has ended: the scale before it and after."""
        stream = getattr(env_state, "stream", None)
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            now = env_state.scaler._scale.detach().clone()
        scales = self._seen[env_state.scaler]
        scales.append(now)
        return scales[-2], now

    def take(self, device: torch.device) -> tuple[Tensor, tuple[int, ...]] | None:
        """All scales since the last call, scaler by scaler, and how many of each; None if no
        environment has a scaler."""
        found = [torch.stack([s.to(device) for s in scales]) for scales in self._seen.values()]
        for scales in self._seen.values():
            del scales[:-1]
        if not found:
            return None
        return torch.cat(found), tuple(len(scales) for scales in found)


def fields(values: Array, counts: Sequence[int]) -> Fields:
    """What `HostScales.take` gave, as fields of a policy update: counts over all environments, the
    smallest scale, and what the worst of them did last (decaying, growing, stable)."""
    each = [scaler_fields(scales.tolist()) for scales in np.split(values, np.cumsum(counts)[:-1])]
    return {
        "loss_scale": min(one["loss_scale"] for one in each),
        "loss_scale_updates": sum(one["loss_scale_updates"] for one in each),
        "amp_overflow_count": sum(one["amp_overflow_count"] for one in each),
        "grad_scaler_state": max((one["grad_scaler_state"] for one in each), key=_ORDER.index),
    }
