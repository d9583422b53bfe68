"""One head of the policy, as the last update left it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from esper_exporter.contract.tamiyo import HeadUpdatePayload
from esper_exporter.contract.vocabulary import HEADS


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


_SCHEMA_FIELDS = {
    **dict.fromkeys(HEADS, ("entropy", "grad_norm", "grad_norm_prev", "ratio_max")),
    "q": ("grad_norm", "grad_norm_prev", "gradient_state"),
}

HEAD_VIEW = {
    f"head_{head}_{field}": (head, field)
    for head, names in _SCHEMA_FIELDS.items()
    for field in names
}
"""How the Sanctum schema spells each head's fields: attribute → head and field."""


def view_heads(state: type[Any]) -> type[Any]:
    """Class decorator: `HEAD_VIEW` as read-only attributes of a state that has ``heads``."""
    hints = get_type_hints(HeadState)
    for name, (head, field) in HEAD_VIEW.items():
        get = _getter(head, field)
        get.__annotations__["return"] = hints[field]
        setattr(state, name, property(get))
    return state


def _getter(head: str, field: str) -> Callable[[Any], Any]:
    def get(state: Any) -> Any:
        found = state.heads.get(head)
        return None if found is None else getattr(found, field)

    return get
