"""watch: gradients, weights, NaN and Inf of any torch loop, PPO or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from esper_exporter.probes.torch import loop_hooks
from esper_exporter.probes.torch.emitter import Sink
from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate

HEADS = {"output": None}
"""A model without action heads has one output, which chooses nothing."""


class Watch:
    """A model whose optimizer steps are measured; made by `watch`."""

    def __init__(self, probe: PolicyProbe, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self._probe = probe
        self._optimizer = optimizer
        self._steps = steps
        self._taken = 0
        loop_hooks.hold()  # updates end and begin inside a hook, which must not go meanwhile
        probe.after_step = self._stepped
        self._update: PolicyUpdate | None = probe.update().begin()

    def loss(self, loss: Tensor | float) -> None:
        """The loss of a batch, before its optimizer step. Never raises."""
        if self._update is not None:
            self._update.minibatch(policy_loss=loss)

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        if optimizer is not self._optimizer:
            return
        self._taken += 1
        if self._update is not None and self._taken % self._steps == 0:
            self._update.end()
            self._update = self._probe.update().begin()

    def close(self) -> None:
        """Stop watching; what was measured since the last report is dropped."""
        if self._update is not None:
            self._probe.drop(self._update)
            self._update = None
            loop_hooks.let_go()
            self._probe.close()


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    exporter: Sink,
    *,
    steps: int = 1,
    max_grad_norm: float | None = None,
    every: int = 10,
    **options: Any,
) -> Watch:
    """Measure a model's gradients and weights at each of its optimizer's steps.

    Call it on the thread that trains. ``steps`` optimizer steps are reported together, as one
    update. ``max_grad_norm`` is what the loop clips to, if it does; torch's own clipping is seen.
    ``every`` and further ``options`` are those of `esper_exporter.PolicyProbe`.

    Raises ValueError for a model without parameters that learn, TypeError for no exporter.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    probe = PolicyProbe(
        model,
        exporter,
        heads=HEADS,
        optimizer=optimizer,
        max_grad_norm=max_grad_norm,
        every=every,
        **options,
    )
    return Watch(probe, optimizer, steps)
