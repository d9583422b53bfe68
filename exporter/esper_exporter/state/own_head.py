"""An action head that is not one of Tamiyo's eight: a policy of the user's own."""

from __future__ import annotations

from esper_exporter.contract.tamiyo import HeadUpdatePayload


class OwnHead(HeadUpdatePayload, frozen=True, gc=False):
    """What the last update told of a head, and its gradient norm in the update before."""

    grad_norm_prev: float | None = None
