"""Inject real faults into real tensors, to see alerts and red panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from esper_exporter.demo.injection import OF_A_MINIBATCH, Fault

EXPLOSION = 1e4
"""The factor on the loss, and so on every gradient."""
COLLAPSE = 30.0
"""Added permanently to the logit of a head's first choice."""
IMPOSSIBLE = 2**58
"""Numbers of four bytes: more than any machine has memory for."""


class Crash(RuntimeError):
    """The injected crash."""


class Faults:
    """Injects faults into the requested updates; ``stall`` returns when the stall is over."""

    def __init__(self, faults: Iterable[Fault], stall: Callable[[], object]) -> None:
        self._all = tuple(faults)
        self._stall = stall
        self._now: tuple[Fault, ...] = ()
        self._minibatches = 0

    def before_rollout(self, update: int, heads: Mapping[str, nn.Module]) -> None:
        """An update begins with its rollout."""
        self._now = tuple(fault for fault in self._all if fault.first <= update <= fault.last)
        self._minibatches = 0
        for _ in self._of("stall"):
            self._stall()
        for fault in self._of("entropy-collapse"):
            bias = list(heads[fault.head].parameters())[-1]
            with torch.no_grad():
                bias[0] += COLLAPSE

    def in_update(self) -> None:
        """The update has begun. Raises Crash, or torch's out-of-memory error."""
        for _ in self._of("oom"):
            torch.empty(IMPOSSIBLE)
        for _ in self._of("crash"):
            raise Crash("a crash, injected by --inject")

    def in_log_probs(self, log_probs: dict[str, Tensor]) -> None:
        """A minibatch's log-probabilities by head (nats) have just been computed."""
        self._minibatches += 1
        for fault in self._of("nan", "inf"):
            wrong = math.nan if fault.kind == "nan" else math.inf
            log_probs[fault.head] = log_probs[fault.head] + wrong

    def in_loss(self, loss: Tensor) -> Tensor:
        """The loss that is derived next."""
        for _ in self._of("grad-explode"):
            loss = EXPLOSION * loss
        return loss

    def in_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients, before measuring and clipping."""
        for _ in self._of("grad-nan"):
            gradient = next(p.grad for p in parameters if p.grad is not None)
            gradient.view(-1)[0] = math.nan

    def _of(self, *kinds: str) -> list[Fault]:
        return [
            fault
            for fault in self._now
            if fault.kind in kinds
            and (fault.full or fault.kind not in OF_A_MINIBATCH or self._minibatches == 1)
        ]
