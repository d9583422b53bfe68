"""Findings: values that were not finite, exploded or vanished."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.finding import (
    EXPLODING_ALWAYS,
    EXPLODING_TIMES,
    HISTORY,
    Finding,
    norm_of,
    real_of,
)
from esper_exporter.journal.record import RunRecord, Update
from esper_exporter.state.failure_reason import Reason, reason_of


def find_nonfinite(run: RunRecord) -> Iterator[Finding]:
    seen: set[tuple[str, str | None]] = set()
    for each in run.nonfinite:
        head = layer = None
        if each.source in ("log_probs", "ref_log_probs") and each.name:
            cause, head = f"head_{each.kind}", each.name
        elif each.source in ("gradients", "weights", "loss", "optimizer"):
            cause, layer = "gradient_nonfinite", each.name
        elif each.source == "ratio":
            cause = "ratio_explosion"
        else:
            cause = "value_nonfinite"
        if (cause, head) in seen and not layer:
            continue
        if (cause, head or layer) in seen:
            continue
        seen |= {(cause, head), (cause, head or layer)}
        kind = "NaN" if each.kind == "nan" else "Inf"
        skipped = "; the update was skipped" if each.skipped else ""
        yield Finding(
            cause, each.number, each.time, each.seq, f"{kind} in {each.where}{skipped}", head, layer
        )


REPORT_SECONDS = 10.0
"""The longest time from an update's phases to its report, on a busy machine."""


def find_missing_update(run: RunRecord, now: datetime | None = None) -> Iterator[Finding]:
    """An update ran and nothing came of it: the trainer's check of the gradient norm raises before
    it reports the update."""
    if run.update_ran_at is None or run.complete:
        return
    age = (now or datetime.now(UTC)) - run.update_ran_at[0]
    if run.ending is None and not run.orphaned and age.total_seconds() < REPORT_SECONDS:
        return
    if run.updates_ran <= len(run.updates) + len(run.skipped):
        return  # a trainer that reports first what it did, and then that it ran
    when, seq = run.update_ran_at
    after = [update.seq for update in run.updates] + [batch["seq"] for batch in run.batches]
    after += [note.seq for note in run.nonfinite]
    after += [each.seq for each in run.incidents if each.kind.startswith(("ppo_", "update_"))]
    if any(each > seq for each in after) or run.last_seq > seq + 2:
        return
    text = run.ending.detail if run.ending is not None else ""
    if run.ending is not None and run.ending.reason not in ("nonfinite", "exception", "unknown"):
        return
    if text and "finite" not in text.lower():
        return
    detail = f": {text}" if text else ""
    yield Finding(
        "gradient_nonfinite",
        run.done_batches + 1,
        when,
        seq,
        "the update ran and was not reported: the check of its gradient norm raised" + detail,
        inferred=not text,
        ends_run=False,
    )


def find_ending_names(run: RunRecord) -> Iterator[Finding]:
    """The non-finite source in the run's final error, where no event reported one."""
    ending = run.ending
    if ending is None or ending.reason not in ("nonfinite", "exception"):
        return
    number = run.current_update
    if any(note.number >= number - 1 for note in run.nonfinite):
        return
    if ending.reason == "nonfinite" and not ending.detail:
        # Whatever comes before the gradients lights a latch.
        detail = "the run ended for a number that was not finite, and no latch was lit before"
        cause = "gradient_nonfinite"
        yield Finding(cause, number, ending.time, run.last_seq, detail, inferred=True)
        return
    text = ending.detail.lower()
    if reason_of(ValueError(ending.detail)) is not Reason.NONFINITE:
        return
    cause = "gradient_nonfinite" if "grad" in text else "value_nonfinite"
    yield Finding(cause, number, ending.time, run.last_seq, ending.detail)


def find_explosion(run: RunRecord) -> Iterator[Finding]:
    before: list[float] = []
    for update in run.updates:
        norm = norm_of(update)
        if norm is None or not math.isfinite(norm):
            continue
        usual = median(before[-50:]) if len(before) >= HISTORY else None
        if norm > EXPLODING_ALWAYS and (usual is None or norm > 3 * usual):
            exploded = True
        else:
            exploded = (
                usual is not None
                and norm > health.GRAD_NORM_CRITICAL
                and norm > EXPLODING_TIMES * usual
            )
        if exploded:
            times = f", {norm / usual:.0f} times its median before" if usual else ""
            head = _loudest_head(update)
            yield Finding(
                "gradient_explosion",
                update.number,
                update.time,
                update.seq,
                f"gradient norm {norm:.4g}{times}",
                head,
            )
            return
        before.append(norm)


def _loudest_head(update: Update) -> str | None:
    norms = {head: real_of(update.values, f"head_{head}_grad_norm") for head in HEADS}
    known = sorted(((norm, head) for head, norm in norms.items() if norm), reverse=True)
    if len(known) >= 2 and known[0][0] > 10 * known[1][0]:
        return known[0][1]
    return None


def find_vanishing(run: RunRecord) -> Iterator[Finding]:
    norms = [(update, norm_of(update)) for update in run.updates]
    small: list[Update] = []
    for update, norm in norms:
        value = update.values.get("pre_clip_grad_norm") or update.values.get("grad_norm")
        if value is None:
            continue
        if (norm or 0.0) < health.HEAD_GRAD_NORM_DEAD:
            small.append(update)
        else:
            small.clear()
        if len(small) >= health.ALERT_UPDATES:
            yield Finding(
                "gradient_vanishing",
                small[0].number,
                small[0].time,
                small[0].seq,
                f"gradient norm below {health.HEAD_GRAD_NORM_DEAD} in {len(small)} updates on end",
            )
            return
