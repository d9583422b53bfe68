"""An update's minibatches, until they are measured at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_exporter.probes.torch import minibatch, minibatch_on_cpu
from esper_exporter.probes.torch.minibatch import Given

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Rows:
    """Minibatches with the same arrays."""

    given: Given
    at_once: bool
    """Whether they are on the CPU."""
    values: list[Tensor] = field(default_factory=list)
    flags: list[Tensor] = field(default_factory=list)
    size: int = 0

    def add(self, values: Tensor, flags: Tensor | None) -> None:
        """One minibatch: `minibatch.stack_values`, `minibatch.stack_flags`."""
        self.values.append(values)
        if flags is not None:
            self.flags.append(flags)
        self.size += values.numel()

    def measured(self, clip_ratio: float) -> Tensor | Array:
        """The vector of all minibatches, by `minibatch.measure`; they are dropped."""
        values = self.values[0] if len(self.values) == 1 else torch.cat(self.values, 1)
        flags = torch.cat(self.flags, 1) if self.flags else None
        self.values, self.flags, self.size = [], [], 0
        if not self.at_once:
            return minibatch.measure(minibatch.steps_of(self.given, values, flags), clip_ratio)
        on_host = None if flags is None else flags.numpy()
        return minibatch_on_cpu.measure(self.given, values.numpy(), on_host, clip_ratio)
