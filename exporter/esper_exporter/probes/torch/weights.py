"""The policy's weights: their norms after an update, and how far it moved them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esper_exporter.probes.torch.gradients import is_sharded, norms_of
from esper_exporter.probes.torch.update import PolicyUpdate


class Weights:
    """Measures the parameters; of those that are sharded, this rank's shard."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._before: list[Tensor] | None = None

    def remember(self) -> None:
        """Keep a copy, so that `see` measures the change: the weights' memory once more."""
        self._before = [p.clone() for p in self._local()]

    def forget(self) -> None:
        """Give the copy's memory back."""
        self._before = None

    def see(self, update: PolicyUpdate) -> None:
        """Norms, NaN and Inf, and the change since `remember`."""
        weights = self._local()
        update.saw_weights(norms_of(weights), weights)
        if self._before is not None:
            # One tensor at a time: all differences at once would be the weights' memory again.
            norms = [
                torch.linalg.vector_norm(now - before, dtype=torch.float64)
                for now, before in zip(weights, self._before, strict=True)
            ]
            total = torch.linalg.vector_norm(torch.stack(norms))
            update.keep("weight_change", total.reshape(1))

    def _local(self) -> list[Tensor]:
        return [p.detach().to_local() if is_sharded(p) else p.detach() for p in self._parameters]
