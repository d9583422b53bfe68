"""An action head that is not one of Tamiyo's eight: a policy of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from esper_exporter.contract.tamiyo import HeadUpdatePayload


@dataclass(frozen=True)
class OwnHead(HeadUpdatePayload):
    """What the last update told of a head, and its gradient norm in the update before."""

    grad_norm_prev: float | None = None
