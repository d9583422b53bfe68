"""One head of the policy, as the last update left it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from esper_exporter.contract.tamiyo import HeadUpdatePayload


@dataclass(slots=True)
class HeadState:
    """A head's last update, and its gradient norm in the one before; None: not reported.

    ``entropy`` is a share of its maximum over all steps, ``kl`` nats, fractions 0 to 1.
    """

    entropy: float | None = None
    grad_norm: float | None = None
    grad_norm_prev: float | None = None
    ratio_max: float | None = None
    clip_fraction: float | None = None
    kl: float | None = None
    active_ratio: float | None = None
    learnable_fraction: float | None = None
    gradient_state: str | None = None

    @classmethod
    def of(cls, update: HeadUpdatePayload, before: HeadState | None) -> HeadState:
        """The state after an update, where ``before`` is that after the update before."""
        return cls(
            update.entropy,
            update.grad_norm,
            None if before is None else before.grad_norm,
            update.ratio_max,
            update.clip_fraction,
            update.kl,
            update.active_ratio,
            update.learnable_fraction,
            update.gradient_state,
        )


HEAD_STATE_FIELDS = tuple(field.name for field in fields(HeadState))
