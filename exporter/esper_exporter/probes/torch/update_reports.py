"""From an update's vectors on the host to its event: completed, skipped, or not completed."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import structs

from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.probes.torch.action_heads import Heads, add_own_heads
from esper_exporter.probes.torch.emitter import Emitter
from esper_exporter.probes.torch.gradient_fields import Layout, gradient_fields, scaler_fields
from esper_exporter.probes.torch.loss_scale import LossScale
from esper_exporter.probes.torch.policy_fields import policy_fields, rollout_fields, stability
from esper_exporter.probes.torch.update import PolicyUpdate

_FIELDS = frozenset(TamiyoPolicyUpdatePayload.__struct_fields__)
_REQUIRED = tuple(
    field.name for field in structs.fields(TamiyoPolicyUpdatePayload) if field.required
)


class UpdateReports:
    """Emits one event for each update, in the order in which they reached the host.

    ``max_norm`` is what the loop says it clips to.
    """

    def __init__(
        self, emitter: Emitter, heads: Heads, layout: Layout, max_norm: float | None
    ) -> None:
        self._emitter = emitter
        self._heads = heads
        self._layout = layout
        self._max_norm = max_norm
        self._scale: float | None = None
        """The loss scale that the last update ended with."""

    def emit(
        self,
        update: PolicyUpdate,
        received: list[Any],
        incomplete: str | None,
        lr: float | None,
        scale: LossScale,
    ) -> None:
        """An update's vectors, as (piece, values). ``incomplete`` says why there is no update."""
        overflows = self._overflows(update, received, scale)
        if incomplete is not None:
            self._emitter.incomplete(incomplete, update.batch, update.index)
        elif update.skipped:
            self._skipped(update)
        else:
            self._completed(update, received, lr, overflows if scale.shared else None)

    def _completed(
        self, update: PolicyUpdate, received: list[Any], lr: float | None, overflows: int | None
    ) -> None:
        by_kind: dict[str, list[Any]] = {}
        for piece, values in received:
            update.resolve(piece, values)
            by_kind.setdefault(piece.kind, []).append(values)
        steps = update.steps(received, self._max_norm)
        found: dict[str, Any] = {
            name: sum(values) / len(values) for name, values in update.sources.losses.items()
        }
        measured = [
            (piece.about, values) for piece, values in received if piece.kind == "minibatch"
        ]
        if measured:
            found |= policy_fields(self._heads, measured, update.sources.infinite)
        found |= rollout_fields({kind: last[-1] for kind, last in by_kind.items()}, self._heads)
        limit = next((step.max_norm for step in steps if step.max_norm), self._max_norm)
        if steps:
            found |= gradient_fields(self._layout, steps, limit)
        found |= self._scaler_fields(by_kind.get("scale", []), overflows)
        if "zeros" in by_kind:
            zeros, entries = by_kind["zeros"][0].tolist()
            found["grad_zero_fraction"] = zeros / entries
        if "weight_change" in by_kind:
            found["policy_update_magnitude"] = float(by_kind["weight_change"][0][0])
        found["lr"] = lr
        found["max_grad_norm"] = limit
        if steps or measured:
            found["numerical_stability_score"] = stability(found, bool(update.findings.detail))
        found |= {"batch": update.batch, "ppo_update_idx": update.index}
        found |= {name: value for name, value in update.reported.items() if name in _FIELDS}
        reported = {name: value for name, value in found.items() if value is not None}
        reported["action_heads"] = tuple(self._heads)
        reported["not_measured"] = tuple(name for name in _REQUIRED if name not in reported)
        add_own_heads(reported, self._heads)
        self._emitter.emit("TAMIYO_POLICY_UPDATE", reported)

    @staticmethod
    def _overflows(update: PolicyUpdate, received: list[Any], scale: LossScale) -> int:
        """How many of the policy's gradients overflowed under its own scale, which fell for it.
        A non-finite value that no loss scale explains is a fault."""
        found = 0
        for place, (piece, values) in enumerate(received):
            if piece.kind != "gradients" or not piece.about.scaled or np.isfinite(values[1:]).all():
                continue
            later = [float(v[0]) for each, v in received[place:] if each.kind == "scale"]
            if scale.of_policy and later and min(later) < later[0]:
                found += 1
            else:
                update.sources.gradients(piece.about.indices, values[1:])
        return found

    def _scaler_fields(self, scales: list[Any], overflows: int | None) -> dict[str, Any]:
        seen = [float(values[0]) for values in scales]
        if self._scale is not None and seen:
            seen.insert(0, self._scale)
        if seen:
            self._scale = seen[-1]
        found = scaler_fields(seen)
        if found and overflows is not None:
            found |= {"amp_overflow_count": overflows, "amp_overflow_detected": overflows > 0}
        return found

    def _skipped(self, update: PolicyUpdate) -> None:
        detail = update.findings.detail
        kind = "ppo_finiteness_skip" if detail else "update_skipped"
        self._emitter.anomaly(kind, detail, update.batch, update.index)
