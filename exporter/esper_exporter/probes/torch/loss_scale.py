"""The AMP loss scale: its current value, and whether it is the policy's."""

from __future__ import annotations

from typing import Any

import torch

from esper_exporter.probes.torch.update import PolicyUpdate


class LossScale:
    """A ``torch.amp.GradScaler`` as the policy sees it.

    A trainer may have one for its host networks alone, or one for both. It is the policy's once
    it has unscaled the gradients of the policy's ``optimizer``; without an optimizer, or without
    torch's own records, the one that was given is.
    """

    def __init__(self, scaler: Any, optimizer: torch.optim.Optimizer | None) -> None:
        self._scaler = scaler
        self._optimizer = optimizer
        self._known = False
        self.shared = False
        """Whether it scales for other optimizers as well: a fall may be theirs."""

    @property
    def enabled(self) -> bool:
        """Whether a scaler is in use."""
        return self._scaler is not None and bool(self._scaler.is_enabled())

    @property
    def of_policy(self) -> bool:
        """Whether it scales the policy's loss, as far as is known."""
        return self.enabled and (self._known or self._records() is None or self._optimizer is None)

    def look(self) -> None:
        """Note the optimizers that it unscales now; it forgets them after each step."""
        if self._scaler is None:
            return
        records = self._records()
        if self.enabled and records and self._optimizer is not None:
            self._known = self._known or id(self._optimizer) in records
            self.shared = self.shared or any(each != id(self._optimizer) for each in records)

    def see(self, update: PolicyUpdate) -> None:
        """Record the current scale."""
        self.look()
        now = getattr(self._scaler, "_scale", None) if self.of_policy else None
        if now is not None:
            update.saw_scale(now)

    def _records(self) -> Any:
        return getattr(self._scaler, "_per_optimizer_states", None)
