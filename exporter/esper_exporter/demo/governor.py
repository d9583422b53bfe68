"""The governor: watches a host's loss, keeps its last good weights, and restores them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esper_exporter.demo.host_network import HostTrainer
from esper_exporter.demo.seeds import Slot

LOBOTOMY_LOSS = 1.5 * math.log(10)
"""1.5 times the loss (nats) of guessing: the host is worse than chance."""
DIVERGENCE = 2.0
"""Times its best loss so far; ``MARGIN`` nats on top."""
MARGIN = 0.7


@dataclass(frozen=True, slots=True)
class Panic:
    """Why a host was restored; the loss and the threshold it passed, in nats."""

    reason: str
    loss: float
    threshold: float


class Governor:
    """Guards one environment's host for one episode."""

    def __init__(self, trainer: HostTrainer) -> None:
        self._trainer = trainer
        self._best = math.inf
        self._kept: dict[nn.Module, list[Tensor]] = {}

    def judge(self, loss: float) -> Panic | None:
        """Check the validation loss of an epoch; save the weights if it is good."""
        threshold = max(LOBOTOMY_LOSS, DIVERGENCE * self._best + MARGIN)
        if math.isinf(self._best):
            threshold = 2 * LOBOTOMY_LOSS
        if not math.isfinite(loss):
            return Panic("governor_nan", loss, threshold)
        if loss > threshold:
            reason = "governor_lobotomy" if self._best > 2.0 else "governor_divergence"
            return Panic(reason, loss, threshold)
        if loss < self._best:
            self._best = loss
            self._kept = {module: _copy(module) for module in self._modules()}
        return None

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the last good weights of the host and its seeds."""
        for module in self._modules():
            kept = self._kept.get(module)
            if kept is not None:
                torch._foreach_copy_(list(module.parameters()), kept)
        self._trainer.optimizer.state.clear()

    def _modules(self) -> list[nn.Module]:
        seeds = [s.seed.module for s in self._trainer.slots if s.seed and _is_part(s)]
        return [self._trainer.host, *seeds]


def _is_part(slot: Slot) -> bool:
    return slot.stage == "FOSSILIZED" and slot.seed is not None and slot.seed.params > 0


@torch.no_grad()
def _copy(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]
