"""Two runs side by side: configuration, results, and where they diverge."""

from __future__ import annotations

import math
from typing import Any

from esper_exporter.journal.record import RunRecord, Update
from esper_exporter.journal.render import escape, page, svg, table
from esper_exporter.journal.report import explain

_SHOWN = (
    "policy_loss",
    "value_loss",
    "entropy",
    "grad_norm",
    "kl_divergence",
    "clip_fraction",
    "explained_variance",
    "return_mean",
)
PARTED = 1e-6
"""Relative difference from which two values differ."""


def compare(one: RunRecord, other: RunRecord) -> dict[str, Any]:
    """The comparison, as plain data: ``runs``, ``configuration``, ``results``, ``parts``,
    ``evidence``."""
    reports = [explain(one), explain(other)]
    keys = dict.fromkeys((*one.config, *other.config))
    differing = [
        [key, one.config.get(key), other.config.get(key)]
        for key in keys
        if one.config.get(key) != other.config.get(key)
    ]
    same = sum(one.config.get(key) == other.config.get(key) for key in keys)
    results = [
        [name, *(_result(run, name) for run in (one, other))]
        for name in ("batches", "updates", "skipped", "rollbacks", "accuracy", "best", "reward")
    ]
    results.append(["seconds", _seconds(one), _seconds(other)])
    results.insert(0, ["cause", reports[0]["cause"], reports[1]["cause"]])
    results.insert(0, ["verdict", reports[0]["verdict"], reports[1]["verdict"]])
    return {
        "runs": [_named(one), _named(other)],
        "configuration": {"differs": differing, "same": same},
        "results": results,
        "parts": _parting(one, other),
        "summary": [report["summary"] for report in reports],
        "evidence": _plots(one, other),
    }


def _named(run: RunRecord) -> dict[str, Any]:
    return {"run_id": run.run_id, "group_id": run.group_id, "rank": run.rank, "source": run.source}


def _result(run: RunRecord, name: str) -> Any:
    accuracies = [b["accuracy"] for b in run.batches if isinstance(b["accuracy"], int | float)]
    return {
        "batches": run.done_batches,
        "updates": len(run.updates),
        "skipped": len(run.skipped),
        "rollbacks": len(run.rollbacks),
        "accuracy": accuracies[-1] if accuracies else None,
        "best": max(accuracies, default=None),
        "reward": run.batches[-1]["reward"] if run.batches else None,
    }[name]


def _seconds(run: RunRecord) -> float | None:
    if run.started is None or run.last_event is None:
        return None
    return round((run.last_event - run.started).total_seconds(), 1)


def _parting(one: RunRecord, other: RunRecord) -> dict[str, Any] | None:
    """The first update in which the runs differ, and in what; None where they do not."""
    by_number = {update.number: update for update in other.updates}
    for update in one.updates:
        twin = by_number.get(update.number)
        if twin is None:
            return {"update": update.number, "what": [["only in the first run", None, None]]}
        found = [
            [name, a, b]
            for name in _SHOWN
            for a, b in [(_real(update, name), _real(twin, name))]
            if not _equal(a, b)
        ]
        if found:
            return {"update": update.number, "what": found}
    if len(other.updates) > len(one.updates):
        last = other.updates[len(one.updates)]
        return {"update": last.number, "what": [["only in the second run", None, None]]}
    return None


def _real(update: Update, name: str) -> Any:
    value = update.values.get(name)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else str(value)
    return value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= PARTED * max(abs(a), abs(b), 1e-9)
    return bool(a == b)


def _plots(one: RunRecord, other: RunRecord) -> list[dict[str, Any]]:
    plots = []
    runs = (("first", one), ("second", other))
    for title, axis, read in (
        ("gradient norm", "update", _norms),
        ("accuracy (percent)", "batch", _accuracies),
    ):
        for name, run in runs:
            points = read(run)
            if len(points) >= 2:
                plots.append(
                    {
                        "kind": "plot",
                        "title": f"{title}, {name} run",
                        "axis": axis,
                        "x": [x for x, _ in points],
                        "y": [y if math.isfinite(y) else "NaN" for _, y in points],
                        "mark": None,
                    }
                )
    return plots


def _norms(run: RunRecord) -> list[tuple[int, float]]:
    points = ((update.number, update.values.get("grad_norm")) for update in run.updates)
    return [(number, norm) for number, norm in points if isinstance(norm, int | float)]


def _accuracies(run: RunRecord) -> list[tuple[int, float]]:
    points = ((batch["number"], batch["accuracy"]) for batch in run.batches)
    return [(number, accuracy) for number, accuracy in points if accuracy is not None]


def _sections(comparison: dict[str, Any]) -> list[tuple[str, list[str], list[list[Any]]]]:
    runs = [f"{run['run_id']} ({run['group_id']})" for run in comparison["runs"]]
    parts = comparison["parts"]
    found = [
        ("Results", ["", *runs], comparison["results"]),
        (
            f"Configuration ({comparison['configuration']['same']} settings are the same)",
            ["setting", *runs],
            comparison["configuration"]["differs"],
        ),
    ]
    if parts is not None:
        found.append((f"They part in update {parts['update']}", ["", *runs], parts["what"]))
    return found


def markdown(comparison: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    from esper_exporter.journal.render import rows

    lines = ["# Two runs", "", *(f"- {text}" for text in comparison["summary"])]
    for title, columns, cells in _sections(comparison):
        lines += ["", f"## {title}", "", *(rows(columns, cells) if cells else ["None differs."])]
    if comparison["parts"] is None:
        lines += ["", "No update that both have differs."]
    return "\n".join(lines) + "\n"


def html(comparison: dict[str, Any]) -> str:
    """The comparison as one HTML page."""
    parts = ["<h1>Two runs</h1>", *(f"<p>{escape(text)}</p>" for text in comparison["summary"])]
    for title, columns, cells in _sections(comparison):
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.append(table(columns, cells) if cells else "<p>None differs.</p>")
    for plot in comparison["evidence"]:
        parts.append(f"<h2>{escape(plot['title'])}</h2>{svg(plot)}")
    return page("Two runs", "\n".join(parts))
