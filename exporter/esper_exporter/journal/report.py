"""The report on a run: verdict, first cause, what preceded and followed it, evidence, what to try.

A report is plain data with the keys of ``explain.schema.json``; `markdown` and `html` show it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from esper_exporter.assets import assets
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.causes import FOLLOWS, find, first_cause, verdict
from esper_exporter.journal.evidence import evidence_of, json_number
from esper_exporter.journal.finding import Finding
from esper_exporter.journal.record import RunRecord, Update

Report = dict[str, Any]

SCHEMA = Path(__file__).with_name("explain.schema.json")

RUNBOOKS = {
    "head_nan": "EsperHeadNonFiniteLatched",
    "head_inf": "EsperHeadNonFiniteLatched",
    "gradient_nonfinite": "EsperNonFiniteGradient",
    "value_nonfinite": "EsperNonFiniteLatched",
    "gradient_explosion": "EsperGradientExplosion",
    "gradient_vanishing": "EsperGradientVanishing",
    "entropy_collapse": "EsperHeadEntropyCollapse",
    "trust_region": "EsperTrustRegionViolated",
    "value_collapse": "EsperValueCollapse",
    "ratio_explosion": "EsperRatioExplosion",
    "rollbacks": "EsperRollbackStorm",
    "out_of_memory": "EsperCudaOutOfMemory",
    "killed": "EsperRunDied",
    "exception": "EsperRunFailed",
    "stalled": "EsperRunStalled",
    "gpu_fault": "EsperGpuXid",
    "unknown": "EsperRunDied",
}
"""Cause → the alert whose runbook has the remedy."""

WORDS = {
    "healthy": "nothing went wrong",
    "head_nan": "an action head produced NaN",
    "head_inf": "an action head produced Inf",
    "gradient_nonfinite": "a gradient or the loss was not finite",
    "value_nonfinite": "the critic or its inputs were not finite",
    "gradient_explosion": "the gradients exploded",
    "gradient_vanishing": "the gradients vanished",
    "entropy_collapse": "a head stopped exploring",
    "trust_region": "updates left the trust region",
    "value_collapse": "the value estimates collapsed",
    "ratio_explosion": "the probability ratios exploded",
    "rollbacks": "the governor kept rolling environments back",
    "out_of_memory": "memory ran out",
    "killed": "the process was killed",
    "exception": "an exception ended the training",
    "stalled": "the training stalled",
    "gpu_fault": "a GPU failed",
    "unknown": "the run ended, and nothing says why",
}

_LASTING = frozenset(
    {"rollbacks", "entropy_collapse", "gradient_vanishing", "value_collapse", "trust_region"}
)
"""What is a cause by going on, from the update on that a report names."""

_WATCHED: dict[str, str] = {
    "pre_clip_grad_norm": "gradient norm before clipping",
    "grad_norm": "gradient norm",
    "kl_divergence": "KL divergence (nats)",
    "clip_fraction": "clipped share",
    "ratio_max": "largest ratio",
    "log_prob_min": "smallest log-probability (nats)",
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "entropy": "entropy (nats, weighted)",
    "explained_variance": "explained variance",
    "return_std": "spread of the returns",
    "value_std": "spread of the values",
    "advantage_std": "spread of the advantages",
    "bellman_error": "Bellman error",
    "lstm_h_max": "largest LSTM state",
    "gradient_cv": "variation of the gradients",
    "cuda_memory_fragmentation": "fragmentation of CUDA memory",
    **{f"head_{head}_grad_norm": f"gradient norm of {head}" for head in HEADS},
}

LOOK_BACK = 5

MOVED = 8.0
"""A value has moved at this many median absolute deviations."""


def explain(run: RunRecord, now: datetime | None = None) -> Report:
    """The report on one run."""
    found = find(run, now)
    cause = first_cause(run, found)
    word = verdict(run, cause, found, now)
    name = cause.cause if cause else "healthy"
    report: Report = {
        "run_id": run.run_id,
        "group_id": run.group_id,
        "verdict": word,
        "cause": name,
        "head": cause.head if cause else None,
        "layer": _layer(cause, found),
        "env": cause.env if cause else None,
        "rank": run.rank,
        "update": cause.number if cause else None,
        "time": _stamp(cause.time) if cause else None,
        "inferred": bool(cause and cause.inferred),
        "summary": _summary(run, cause, word),
        "before": _before(run, cause),
        "followed": _followed(found, cause),
        "evidence": evidence_of(run, cause),
        "timeline": _timeline(run, found, cause),
        "try": _try(name),
        "runbook": f"alerts/runbooks/{RUNBOOKS[name]}.md" if name in RUNBOOKS else None,
        "unknown": _unknown(run, cause, found),
        "source": run.source,
    }
    return report


def _layer(cause: Finding | None, found: list[Finding]) -> str | None:
    if cause is None:
        return None
    if cause.layer is not None:
        return cause.layer
    same = (each.layer for each in found if each.number == cause.number and each.layer)
    return next(same, None) if cause.cause == "gradient_nonfinite" else None


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _summary(run: RunRecord, cause: Finding | None, word: str) -> str:
    planned = run.planned_batches
    far = f"{run.done_batches} of {planned} batches" if planned else f"{run.done_batches} batches"
    updates = f"{len(run.updates)} policy updates"
    if run.updates and not run.batches:  # a loop of another trainer reports no batches
        far = updates
    if cause is None:
        also = f" and {updates}" if far != updates else ""
        return f"Nothing went wrong in {far}{also}."
    if cause.cause == "unknown" and word == "stopped":
        return f"The events end after {far}, and nothing says why."
    where = f" in update {cause.number}" if cause.number is not None else ""
    if where and cause.cause in _LASTING:
        where = f" from update {cause.number} on"
    head = f" (head {cause.head})" if cause.head else ""
    end = {
        "failed": f" The run ended after {far}.",
        "stopped": f" The events end after {far}.",
        "unhealthy": f" {_went_on(run)}",
    }.get(word, "")
    words = WORDS[cause.cause]
    return f"{words[0].upper()}{words[1:]}{head}{where}: {cause.detail}.{end}"


def _went_on(run: RunRecord) -> str:
    """The run's progress at its last event, which need not be its end."""
    updates = len(run.updates) if run.carried_out is None else run.carried_out
    batches = f"{run.done_batches} batches, " if run.batches else ""
    begin = "The run went on" if run.complete else "By its last event the run went on"
    return f"{begin}: {batches}{updates} updates carried out."


def _values(updates: list[Update], name: str) -> list[float]:
    found = []
    for update in updates:
        value = update.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.append(float(value))
    return found


def _before(run: RunRecord, cause: Finding | None) -> list[dict[str, Any]]:
    """Values that moved in the updates before, against the run's history; in order of time."""
    if cause is None or cause.number is None:
        return []
    until = [update for update in run.updates if update.number <= cause.number]
    window, history = until[-LOOK_BACK:], until[:-LOOK_BACK]
    if len(history) < LOOK_BACK:
        return []
    moved: list[dict[str, Any]] = []
    for name, words in _WATCHED.items():
        past = _values(history, name)
        if len(past) < LOOK_BACK:
            continue
        usual = median(past)
        spread = median(abs(value - usual) for value in past) or abs(usual) * 0.05 or 1e-12
        for update in window:
            value = update.values.get(name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            away = (value - usual) / spread if math.isfinite(value) else math.inf
            large = not math.isfinite(value) or abs(value - usual) > abs(usual)
            if abs(away) > MOVED and large:
                moved.append(
                    {
                        "what": words,
                        "field": name,
                        "update": update.number,
                        "value": json_number(float(value)),
                        "usual": json_number(usual),
                        "times": json_number(value / usual) if usual else None,
                    }
                )
                break
    moved.sort(key=lambda each: each["update"])
    return moved[:8]


def _followed(found: list[Finding], cause: Finding | None) -> list[dict[str, Any]]:
    if cause is None:
        return []
    texts = []
    for each in found:
        if each is cause:
            continue
        texts.append(
            {
                "cause": each.cause,
                "update": each.number,
                "time": _stamp(each.time),
                "head": each.head,
                "detail": each.detail,
                "follows": cause.cause in FOLLOWS[each.cause] or cause.cause == each.cause,
            }
        )
    return texts


def _timeline(run: RunRecord, found: list[Finding], cause: Finding | None) -> list[dict[str, Any]]:
    lines: list[tuple[int, datetime | None, str]] = []
    if run.started is not None:
        config = run.config
        lines.append(
            (
                0,
                run.started,
                f"training started: {config.get('task', '?')}, {config.get('n_envs', '?')} envs",
            )
        )
    if run.updates:
        first = run.updates[0]
        lines.append((first.seq, first.time, f"first policy update, number {first.number}"))
    for each in found:
        mark = " ← first cause" if each is cause else ""
        number = f"update {each.number}: " if each.number is not None else ""
        lines.append((each.seq, each.time, f"{number}{each.cause}: {each.detail}{mark}"))
    for skipped in run.skipped[:20]:
        note = next((n for n in run.nonfinite if n.number == skipped and n.skipped), None)
        if note is not None:
            lines.append((note.seq, note.time, f"update {skipped} was skipped"))
    for back in run.rollbacks[:20]:
        lines.append((back.seq, back.time, f"rollback of env {back.env}: {back.reason}"))
    if run.batches:
        last = run.batches[-1]
        lines.append((last["seq"], last["time"], f"last batch that ended: {last['number']}"))
    if run.last_event is not None:
        lines.append((run.last_seq, run.last_event, "last event"))
    lines.sort(key=lambda line: line[0])
    unique = dict.fromkeys((_stamp(moment), text) for _, moment, text in lines)
    return [{"time": moment, "what": text} for moment, text in unique]


def _try(cause: str) -> list[str]:
    """The runbook's checks, in its order, and when to stop."""
    name = RUNBOOKS.get(cause)
    if name is None:
        return []
    path = assets().get(PurePosixPath(f"alerts/runbooks/{name}.md"))
    if path is None:
        return []
    sections: dict[str, list[str]] = {}
    here = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            here = line[3:]
        elif line.strip():
            sections.setdefault(here, []).append(line.strip())
    texts = [
        line.partition(". ")[2] or line for line in sections.get("Likely causes, in order", [])
    ]
    return texts + sections.get("When to stop the run", [])


def _unknown(run: RunRecord, cause: Finding | None, found: list[Finding]) -> list[str]:
    texts = []
    if cause is not None and cause.inferred:
        texts.append("The cause is inferred from what is missing; no event names it.")
    if run.ending is None and not run.complete:
        texts.append("How the process itself ended: the source does not tell. A journal does.")
    if cause is not None and cause.number is not None and run.carried_out is not None:
        texts.append("Which update exactly: its number is that of the samples around it.")
    if cause is not None and cause.cause == "gradient_nonfinite" and not _layer(cause, found):
        texts.append("Which layer: only the probe (`PolicyProbe`, `attach`) measures layers.")
    if not any(update.values.get("kl_divergence") for update in run.updates) and run.updates:
        texts.append("KL, ratios, clipped shares: with one inner epoch they are constants.")
    if len(run.updates) < 2 * LOOK_BACK and cause is not None:
        texts.append("What moved before: too few updates to know what was usual.")
    if not run.updates:
        texts.append("How the policy learned: no policy update was reported.")
    return texts


def as_json(report: Report | list[Report]) -> str:
    """A report, or several, as JSON."""
    return json.dumps(report, indent=2, allow_nan=False)


def headline(report: Report) -> Iterable[tuple[str, str]]:
    """The head of a report, as (name, value)."""
    yield "Verdict", report["verdict"]
    cause = "none" if report["cause"] == "healthy" else report["cause"]
    yield "First cause", cause + (" (inferred)" if report["inferred"] else "")
    for name in ("head", "layer", "env", "update", "time"):
        if report[name] is not None:
            yield name.capitalize(), str(report[name])
    yield "Group", report["group_id"]
    yield "Rank", str(report["rank"])
