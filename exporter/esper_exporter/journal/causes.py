"""Why a run went wrong: what is found in it, in the order of time, and what follows from what.

Each detector looks for one thing and says when it was first there. The first cause is the earliest
finding from which, by `FOLLOWS`, what ended the run can follow; for a run that was not ended by a
fault it is the earliest finding. Of findings of one update, those that another one explains are not
the cause. Severity plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.record import RunRecord, Update
from esper_exporter.shutdown.failure_reason import Reason, reason_of

CAUSES = (
    "healthy",
    "head_nan",
    "head_inf",
    "gradient_nonfinite",
    "value_nonfinite",
    "gradient_explosion",
    "gradient_vanishing",
    "entropy_collapse",
    "trust_region",
    "value_collapse",
    "ratio_explosion",
    "rollbacks",
    "out_of_memory",
    "killed",
    "exception",
    "stalled",
    "gpu_fault",
    "unknown",
)

_NUMERIC = frozenset({"head_nan", "head_inf", "gradient_nonfinite", "value_nonfinite"})
FOLLOWS: dict[str, frozenset[str]] = {
    "head_nan": frozenset(
        {"gradient_nonfinite", "gradient_explosion", "value_nonfinite", "head_inf", "gpu_fault"}
        | {"ratio_explosion", "trust_region"}
    ),
    "head_inf": frozenset(
        {"gradient_nonfinite", "gradient_explosion", "value_nonfinite", "head_nan", "gpu_fault"}
        | {"ratio_explosion", "trust_region"}
    ),
    "value_nonfinite": frozenset(
        {"gradient_nonfinite", "gradient_explosion", "head_nan", "head_inf", "gpu_fault"}
        | {"value_collapse"}
    ),
    "gradient_nonfinite": frozenset(
        {"head_nan", "head_inf", "value_nonfinite", "gradient_explosion", "gpu_fault"}
        | {"ratio_explosion", "trust_region"}
    ),
    "gradient_explosion": frozenset(
        {"value_collapse", "trust_region", "ratio_explosion", "gpu_fault"} | _NUMERIC
    ),
    "gradient_vanishing": frozenset({"entropy_collapse", "value_collapse", "gradient_explosion"}),
    "entropy_collapse": frozenset(
        {"trust_region", "ratio_explosion", "gradient_explosion", "gradient_vanishing"} | _NUMERIC
    ),
    "trust_region": frozenset({"gradient_explosion", "ratio_explosion"} | _NUMERIC),
    "ratio_explosion": frozenset({"gradient_explosion", "trust_region"} | _NUMERIC),
    "value_collapse": frozenset({"gradient_explosion", "gradient_vanishing"} | _NUMERIC),
    "rollbacks": frozenset({"gpu_fault"}),
    "exception": frozenset({"out_of_memory", "gpu_fault"} | _NUMERIC),
    "out_of_memory": frozenset(),
    "killed": frozenset({"out_of_memory", "stalled", "gpu_fault"}),
    "stalled": frozenset({"gpu_fault"}),
    "gpu_fault": frozenset(),
    "unknown": frozenset({"out_of_memory", "gpu_fault", "stalled"} | _NUMERIC),
}
"""Finding → what it can follow from. What stands on neither side of a pair is independent."""

_SAME_UPDATE = {
    "gradient_nonfinite": {"head_nan", "head_inf", "value_nonfinite"},
    "value_nonfinite": {"head_nan", "head_inf"},
    "head_nan": {"gpu_fault"},
    "head_inf": {"gpu_fault"},
    "gradient_explosion": {"head_nan", "head_inf", "value_nonfinite", "gradient_nonfinite"},
    "ratio_explosion": {"head_nan", "head_inf", "value_nonfinite", "gradient_explosion"},
    "trust_region": {"head_nan", "head_inf", "ratio_explosion", "gradient_explosion"},
    "value_collapse": {"value_nonfinite", "gradient_explosion"},
    "entropy_collapse": {"head_nan", "head_inf"},
}
"""Within one update: values come before the losses, those before the gradients, and all of them
before what the update does to the policy."""

EXPLODING_TIMES = 20.0
"""A gradient norm so many times the median of the updates before, above the critical norm."""
EXPLODING_ALWAYS = 1_000.0
RATIO_EXPLODED = 5.0
KL_AT_ONCE = 10 * health.KL_CRITICAL
STREAK = 3
HISTORY = 3
"""Updates before that make a history."""
SILENCE_TIMES = 20.0
SILENCE_SECONDS = 30.0
LINKED_UPDATES = 3
"""What ended the run can follow from what was so few updates before, where nothing says it."""
DEATHS = frozenset({"exception", "killed", "out_of_memory", "stalled", "unknown", "gpu_fault"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that went wrong, and when it was first there."""

    cause: str
    number: int | None
    time: datetime | None
    seq: int
    detail: str
    head: str | None = None
    layer: str | None = None
    env: int | None = None
    inferred: bool = False
    """Not reported as such: read from what is missing."""
    ends_run: bool = False


def find(run: RunRecord, now: datetime | None = None) -> list[Finding]:
    """Everything that was wrong in a run, in the order of time."""
    found = [
        *_nonfinite(run),
        *_missing_update(run),
        *_ending_names(run),
        *_explosion(run),
        *_vanishing(run),
        *_entropy(run),
        *_trust_region(run),
        *_ratio(run),
        *_value(run),
        *_rollbacks(run),
        *_incidents(run),
        *_silence(run, now),
    ]
    found += _ending(run, found, now)
    far = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda each: (each.seq, each.time or far))


def first_cause(run: RunRecord, found: list[Finding]) -> Finding | None:
    """The finding that the others follow from, None where there is none."""
    if not found:
        return None
    end = next((each for each in found if each.ends_run), None)
    candidates = found
    if end is not None:
        candidates = [each for each in found if each is end or _leads_to(each, end, found, run)]
    # An update that is reported in several events is one moment.
    first = candidates[0]
    moment = [each for each in candidates if _same_moment(each, first)]
    for each in moment:
        explained = _SAME_UPDATE.get(each.cause, set())
        if not any(other.cause in explained for other in moment if other is not each):
            return each
    return first


def _same_moment(one: Finding, other: Finding) -> bool:
    return one is other or (one.number is not None and one.number == other.number)


def _leads_to(each: Finding, end: Finding, found: list[Finding], run: RunRecord) -> bool:
    """Whether the end of the run can follow from a finding, at once or by way of others."""
    # A process that is gone and left no word may have died of what it did last.
    reached = {end.cause, "unknown"} if end.inferred else {end.cause}
    if reached & {"exception", "unknown"} and not _recent(each, run):
        return False
    while True:
        more = {cause for known in reached for cause in FOLLOWS[known]} - reached
        here = {other.cause for other in found if other.seq <= end.seq}
        more &= here
        if not more:
            return each.cause in reached and each.cause != end.cause
        reached |= more


def _recent(each: Finding, run: RunRecord) -> bool:
    if each.cause not in _NUMERIC:
        return True
    last = max([note.number for note in run.nonfinite], default=each.number or 0)
    return last >= run.current_update - LINKED_UPDATES


def _norm(update: Update) -> float | None:
    """The gradient norm before clipping where it is known, else the trainer's."""
    for name in ("pre_clip_grad_norm", "grad_norm"):
        value = update.values.get(name)
        if isinstance(value, int | float) and value:
            return float(value)
    return None


def _real(values: Any, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _nonfinite(run: RunRecord) -> Iterator[Finding]:
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
        what = f"{each.source}[{each.name}]" if each.name else each.source
        kind = "NaN" if each.kind == "nan" else "Inf"
        skipped = "; the update was skipped" if each.skipped else ""
        yield Finding(
            cause, each.number, each.time, each.seq, f"{kind} in {what}{skipped}", head, layer
        )


def _missing_update(run: RunRecord) -> Iterator[Finding]:
    """An update ran and nothing came of it: the trainer's check of the gradient norm raises before
    it reports the update."""
    if run.update_ran_at is None or run.complete:
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
    told = f": {text}" if text else ""
    yield Finding(
        "gradient_nonfinite",
        run.done_batches + 1,
        when,
        seq,
        "the update ran and was not reported: the check of its gradient norm raised" + told,
        inferred=not text,
        ends_run=False,
    )


def _ending_names(run: RunRecord) -> Iterator[Finding]:
    """What the error that ended the run says was not finite, where no event said it."""
    ending = run.ending
    if ending is None or ending.reason not in ("nonfinite", "exception"):
        return
    number = run.current_update
    if any(note.number >= number - 1 for note in run.nonfinite):
        return
    if ending.reason == "nonfinite" and not ending.detail:
        # Whatever comes before the gradients lights a latch.
        told = "the run ended for a number that was not finite, and no latch was lit before"
        cause = "gradient_nonfinite"
        yield Finding(cause, number, ending.time, run.last_seq, told, inferred=True)
        return
    text = ending.detail.lower()
    if reason_of(ValueError(ending.detail)) is not Reason.NONFINITE:
        return
    cause = "gradient_nonfinite" if "grad" in text else "value_nonfinite"
    yield Finding(cause, number, ending.time, run.last_seq, ending.detail)


def _explosion(run: RunRecord) -> Iterator[Finding]:
    before: list[float] = []
    for update in run.updates:
        norm = _norm(update)
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
    norms = {head: _real(update.values, f"head_{head}_grad_norm") for head in HEADS}
    known = sorted(((norm, head) for head, norm in norms.items() if norm), reverse=True)
    if len(known) >= 2 and known[0][0] > 10 * known[1][0]:
        return known[0][1]
    return None


def _vanishing(run: RunRecord) -> Iterator[Finding]:
    norms = [(update, _norm(update)) for update in run.updates]
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


def choice_entropy(update: Update, head: str, slots: int) -> float | None:
    """A head's entropy over the steps in which it had a choice, as a share of its maximum."""
    from esper_exporter.contract.vocabulary import head_max_entropy

    entropy = _real(update.values, f"head_{head}_entropy")
    if entropy is None:
        return None
    shares = [_real(update.values, f"head_{each}_entropy") or 0.0 for each in HEADS]
    if max(shares) > 1.01:  # a run of the seeds' age reports nats
        most = head_max_entropy(head, slots)
        return entropy / most if most > 0 else None
    learnable = _real(update.values, f"head_{head}_learnable_fraction")
    if learnable is None:
        return entropy
    return entropy / learnable if learnable >= 0.01 else None


def _entropy(run: RunRecord) -> Iterator[Finding]:
    slots = len(run.config.get("slot_ids") or ()) or 3
    own = sorted({head for update in run.updates for head in _own_heads(update)})
    for head in (*HEADS, *own):
        if head == "slot" and slots == 1:
            continue
        before: list[float] = []
        low: list[Update] = []
        for update in run.updates:
            share = choice_entropy(update, head, slots)
            if head in own:
                share = _own_heads(update).get(head)
            if share is None:
                continue
            known = _real(update.values, f"head_{head}_learnable_fraction") is not None
            usual = median(before) if len(before) >= HISTORY else None
            fell = usual is not None and share < 0.2 * usual
            if share < health.STATE_ENTROPY_COLLAPSED and (fell or known or head in own):
                low.append(update)
            else:
                low.clear()
                before.append(share)
            if len(low) >= STREAK:
                yield Finding(
                    "entropy_collapse",
                    low[0].number,
                    low[0].time,
                    low[0].seq,
                    f"entropy of head {head} at {share:.3g} of its maximum where it had a choice"
                    + (f", {usual:.2f} before" if usual else ""),
                    head,
                )
                break


def _own_heads(update: Update) -> dict[str, float]:
    told = update.values.get("head_updates")
    found = {}
    for name, values in told.items() if isinstance(told, dict) else ():
        entropy = values.get("entropy") if isinstance(values, dict) else None
        if isinstance(entropy, float) and name not in HEADS:
            found[name] = entropy
    return found


def _streak(run: RunRecord, name: str, limit: float) -> list[Update]:
    """The first updates in a row that exceed a limit, `STREAK` of them; empty without."""
    above: list[Update] = []
    for update in run.updates:
        value = _real(update.values, name)
        if value is not None and value > limit:
            above.append(update)
            if len(above) == STREAK:
                return above
        elif value is not None:
            above.clear()
    return []


def _trust_region(run: RunRecord) -> Iterator[Finding]:
    once = next(
        (u for u in run.updates if (_real(u.values, "kl_divergence") or 0) > KL_AT_ONCE), None
    )
    long = _streak(run, "kl_divergence", health.KL_CRITICAL)
    clipped = _streak(run, "clip_fraction", health.CLIP_FRACTION_CRITICAL)
    starts = [each for each in (once, *long[:1], *clipped[:1]) if each is not None]
    if starts:
        first = min(starts, key=lambda update: update.seq)
        kl = _real(first.values, "kl_divergence") or 0.0
        clip = _real(first.values, "clip_fraction") or 0.0
        yield Finding(
            "trust_region",
            first.number,
            first.time,
            first.seq,
            f"KL divergence {kl:.3g} nats, {clip:.0%} of the samples clipped",
        )


def _ratio(run: RunRecord) -> Iterator[Finding]:
    found = [u for u in run.updates if (_real(u.values, "ratio_max") or 0) > RATIO_EXPLODED]
    told = [each for each in run.incidents if each.kind in ("ratio_explosion", "ratio_nan_inf")]
    if found and (not told or found[0].seq <= told[0].seq):
        update = found[0]
        worst = max(HEADS, key=lambda head: _real(update.values, f"head_{head}_ratio_max") or 0.0)
        largest = _real(update.values, f"head_{worst}_ratio_max") or 0.0
        yield Finding(
            "ratio_explosion",
            update.number,
            update.time,
            update.seq,
            f"largest probability ratio {update.values['ratio_max']:.3g}",
            worst if largest > RATIO_EXPLODED else None,
        )
    elif told:
        first = told[0]
        yield Finding("ratio_explosion", first.number, first.time, first.seq, first.detail)


def _value(run: RunRecord) -> Iterator[Finding]:
    """The value estimates lose their spread, or the trainer says so again after its first updates.

    Its warning in the first updates is usual: an untrained critic is far off.
    """
    spreads: list[float] = []
    low: list[Update] = []
    for update in run.updates:
        top, bottom = _real(update.values, "value_max"), _real(update.values, "value_min")
        if top is None or bottom is None:
            continue
        spread = top - bottom
        usual = median(spreads[-50:]) if len(spreads) >= 2 * HISTORY else None
        if usual and spread < health.VALUE_SPREAD_COLLAPSED * usual:
            low.append(update)
        else:
            low.clear()
            spreads.append(spread)
        if len(low) >= health.ALERT_UPDATES:
            yield Finding(
                "value_collapse",
                low[0].number,
                low[0].time,
                low[0].seq,
                f"value estimates spread over {spread:.3g}, {usual:.3g} before",
            )
            return
    warm = max(HISTORY, (run.planned_batches or 0) // 4)
    told = [each for each in run.incidents if each.kind == "value_collapse" and each.number > warm]
    if len(told) >= STREAK:
        first = told[0]
        yield Finding("value_collapse", first.number, first.time, first.seq, first.detail)


def _rollbacks(run: RunRecord) -> Iterator[Finding]:
    broken = [
        each for each in run.rollbacks if each.loss is not None and not math.isfinite(each.loss)
    ]
    envs = run.config.get("n_envs") or 1
    episodes = max(run.outcomes, run.done_batches * envs, 1)
    many = (
        len(run.rollbacks) >= health.ROLLBACKS
        and len(run.rollbacks) >= health.ROLLBACKS_PER_EPISODE * episodes
    )
    if not many and not broken:
        return
    first = run.rollbacks[0] if many else broken[0]
    loss = f", loss {first.loss:g}" if first.loss is not None else ""
    yield Finding(
        "rollbacks",
        first.number,
        first.time,
        first.seq,
        f"{len(run.rollbacks)} rollbacks in {episodes} episodes, the first: {first.reason}{loss}",
        env=first.env,
    )


def _incidents(run: RunRecord) -> Iterator[Finding]:
    for each in run.incidents:
        if each.kind == "cuda_oom":
            yield Finding(
                "out_of_memory",
                each.number,
                each.time,
                each.seq,
                f"CUDA out of memory {each.detail}",
            )
        elif each.kind == "gpu_fault":
            yield Finding("gpu_fault", each.number, each.time, each.seq, each.detail)


def _silence(run: RunRecord, now: datetime | None) -> Iterator[Finding]:
    """The process lives and says nothing any more."""
    alive, last = run.alive_at, run.last_event
    if alive is None or last is None or run.complete:
        return
    gaps = [
        (b.time - a.time).total_seconds()
        for a, b in zip(run.updates, run.updates[1:], strict=False)
    ]
    usual = median(gaps) if gaps else 0.0
    silent = (alive - last).total_seconds()
    if silent > max(SILENCE_SECONDS, SILENCE_TIMES * usual):
        yield Finding(
            "stalled",
            run.current_update,
            last,
            run.last_seq,
            f"no event for {silent:.0f} s while the process lived",
            ends_run=run.ending is None and not run.orphaned,
        )


_ENDINGS = {
    "oom": "out_of_memory",
    "out_of_memory": "out_of_memory",
    "exception": "exception",
    "nonfinite": "exception",
    "unknown": "unknown",
    "signal": "killed",
    "killed": "killed",
    "stalled": "stalled",
}


def _ending(run: RunRecord, found: list[Finding], now: datetime | None) -> Iterator[Finding]:
    ending = run.ending
    number = run.current_update
    if ending is not None:
        if ending.reason == "finished":
            return
        cause = _ENDINGS.get(ending.reason, "exception")
        text = ending.detail.lower()
        if "out of memory" in text or "cannot allocate memory" in text:
            cause = "out_of_memory"
        parts = [ending.detail or f"the run ended: {ending.reason}"]
        if ending.exit_code is not None:
            parts.append(f"exit code {ending.exit_code}")
        if ending.signal is not None:
            parts.append(f"signal {ending.signal}")
        yield Finding(cause, number, ending.time, run.last_seq + 1, "; ".join(parts), ends_run=True)
        return
    gave_up = next((e for e in run.incidents if e.kind == "ppo_finiteness_failure"), None)
    if gave_up is not None and not run.complete:
        yield Finding(
            "exception",
            gave_up.number,
            gave_up.time,
            gave_up.seq,
            f"the trainer gave up: {gave_up.detail}",
            ends_run=True,
        )
        return
    raised = next(
        (
            each
            for each in run.incidents
            if each.kind == "update_incomplete"
            and each.detail == "raised"
            and each.number >= number
        ),
        None,
    )
    if raised is not None:
        yield Finding(
            "exception",
            raised.number,
            raised.time,
            raised.seq,
            "an exception ended the update; which one is not said",
            ends_run=True,
        )
    elif run.orphaned and not run.complete and run.started is not None:
        yield Finding(
            "killed",
            number,
            run.alive_at or run.last_event,
            run.last_seq + 1,
            "the process is gone and said nothing of its end: killed by a signal, or the system",
            inferred=True,
            ends_run=True,
        )
    elif not run.complete and run.planned_batches is not None and not _lives(run, now):
        if any(each.ends_run for each in found):
            return
        yield Finding(
            "unknown",
            number,
            run.last_event,
            run.last_seq + 1,
            f"the events end after {run.done_batches} of {run.planned_batches} batches",
            inferred=True,
            ends_run=True,
        )


FRESH_SECONDS = 120.0


def _lives(run: RunRecord, now: datetime | None) -> bool:
    """Whether the newest event is so young that more may come."""
    moment = now or datetime.now(UTC)
    last = run.alive_at or run.last_event
    return last is not None and (moment - last).total_seconds() < FRESH_SECONDS


def verdict(
    run: RunRecord, cause: Finding | None, found: list[Finding], now: datetime | None
) -> str:
    """healthy, running, unhealthy (it went on, or finished, with a fault), failed, or stopped."""
    end = next((each for each in found if each.ends_run), None)
    if end is not None and end.cause != "unknown":
        return "failed"
    if cause is None:
        return "healthy" if run.complete or not _lives(run, now) else "running"
    if end is None:
        return "unhealthy"
    return "stopped" if cause.cause == "unknown" else "failed"
