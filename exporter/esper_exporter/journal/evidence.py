"""The tables and plots of a report."""

from __future__ import annotations

import math
from typing import Any

from esper_exporter.journal.finding import Finding
from esper_exporter.journal.policy_findings import choice_entropy
from esper_exporter.journal.record import RunRecord


def json_number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they become texts."""
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.6g}")


def evidence_of(run: RunRecord, cause: Finding | None) -> list[dict[str, Any]]:
    mark = cause.number if cause else None
    shown = run.updates
    if mark is not None:
        after = [update for update in run.updates if update.number > mark][:5]
        shown = [update for update in run.updates if update.number <= mark][-8:] + after
    else:
        shown = run.updates[-8:]
    columns = ["update", "gradient norm", "KL (nats)", "clipped", "largest ratio", "value loss"]
    rows = [
        [
            update.number,
            _cell(update.values.get("pre_clip_grad_norm") or update.values.get("grad_norm")),
            _cell(update.values.get("kl_divergence")),
            _cell(update.values.get("clip_fraction")),
            _cell(update.values.get("ratio_max")),
            _cell(update.values.get("value_loss")),
        ]
        for update in shown
    ]
    found: list[dict[str, Any]] = []
    if rows:
        found.append({"kind": "table", "title": "Updates", "columns": columns, "rows": rows})
    if run.nonfinite:
        found.append(
            {
                "kind": "table",
                "title": "What was not finite",
                "columns": ["update", "where", "kind", "skipped"],
                "rows": [[n.number, n.where, n.kind, n.skipped] for n in run.nonfinite[:20]],
            }
        )
    if run.rollbacks:
        found.append(
            {
                "kind": "table",
                "title": "Rollbacks",
                "columns": ["batch", "env", "reason", "loss"],
                "rows": [
                    [r.number, r.env, r.reason, None if r.loss is None else json_number(r.loss)]
                    for r in run.rollbacks[:20]
                ],
            }
        )
    found += _plots(run, cause, mark)
    return found


def _cell(value: Any) -> Any:
    return json_number(float(value)) if isinstance(value, int | float) else None


def _plots(run: RunRecord, cause: Finding | None, mark: int | None) -> list[dict[str, Any]]:
    slots = len(run.config.get("slot_ids") or ()) or 3
    series: list[tuple[str, list[tuple[int, float | None]]]] = []

    def of(name: str) -> list[tuple[int, float | None]]:
        pairs = [(u.number, u.values.get(name)) for u in run.updates]
        return [(n, float(v) if isinstance(v, int | float) else None) for n, v in pairs]

    has_pre = any(u.values.get("pre_clip_grad_norm") for u in run.updates)
    series.append(("Gradient norm", of("pre_clip_grad_norm" if has_pre else "grad_norm")))
    if cause is not None and cause.head:
        entropies = [(u.number, choice_entropy(u, cause.head, slots)) for u in run.updates]
        series.append((f"Entropy of {cause.head}, share of its maximum", entropies))
        series.append((f"Gradient norm of {cause.head}", of(f"head_{cause.head}_grad_norm")))
    if cause is not None and cause.cause in ("trust_region", "ratio_explosion"):
        series += [("KL divergence (nats)", of("kl_divergence")), ("Ratio", of("ratio_max"))]
    if run.batches:
        pairs = [(batch["number"], batch["accuracy"]) for batch in run.batches]
        series.append(("Accuracy (percent), by batch", pairs))
    plots = []
    for title, points in series:
        known = [(n, v) for n, v in points if v is not None]
        if len(known) >= 2:
            plots.append(
                {
                    "kind": "plot",
                    "title": title,
                    "axis": "batch" if title.endswith("by batch") else "update",
                    "x": [n for n, _ in known],
                    "y": [json_number(v) for _, v in known],
                    "mark": mark,
                }
            )
    return plots
