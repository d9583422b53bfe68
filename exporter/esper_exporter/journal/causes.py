"""Why a run went wrong: its findings in the order of time, and which finding causes which.

Each detector looks for one thing and says when it was first there. The first cause is the earliest
finding from which, by `FOLLOWS`, what ended the run can follow; for a run that was not ended by a
fault it is the earliest finding. Of findings of one update, those that another one explains are not
the cause. Severity plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

from esper_exporter.journal.finding import Finding
from esper_exporter.journal.numeric_findings import (
    find_ending_names,
    find_explosion,
    find_missing_update,
    find_nonfinite,
    find_vanishing,
)
from esper_exporter.journal.policy_findings import (
    find_entropy,
    find_ratio,
    find_rollbacks,
    find_trust_region,
    find_value,
)
from esper_exporter.journal.record import RunRecord

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
"""Finding → the findings that can cause it. Two findings without an entry are independent."""

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

SILENCE_TIMES = 20.0

SILENCE_SECONDS = 30.0

LINKED_UPDATES = 3
"""A finding at most this many updates before the end can be its cause without further evidence."""

DEATHS = frozenset({"exception", "killed", "out_of_memory", "stalled", "unknown", "gpu_fault"})


def find(run: RunRecord, now: datetime | None = None) -> list[Finding]:
    """Everything that was wrong in a run, in the order of time."""
    found = [
        *find_nonfinite(run),
        *find_missing_update(run, now),
        *find_ending_names(run),
        *find_explosion(run),
        *find_vanishing(run),
        *find_entropy(run),
        *find_trust_region(run),
        *find_ratio(run),
        *find_value(run),
        *find_rollbacks(run),
        *_incidents(run),
        *_silence(run, now),
    ]
    found += _ending(run, found, now)
    far = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda each: (each.seq, each.time or far))


def first_cause(run: RunRecord, found: list[Finding]) -> Finding | None:
    """The finding that causes the others, None where there is none."""
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
    """Whether a finding can be the cause of the run's end, directly or through others."""
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
    """The process lives and emits nothing any more."""
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
    "segfault": "killed",
    "abort": "killed",
    "exit": "exception",
    "killed": "killed",
    "died": "killed",
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
    """healthy, running, unhealthy (it continued, or finished, with a fault), failed, or stopped."""
    end = next((each for each in found if each.ends_run), None)
    if end is not None and end.cause != "unknown":
        return "failed"
    if cause is None:
        return "healthy" if run.complete or not _lives(run, now) else "running"
    if end is None:
        return "unhealthy"
    return "stopped" if cause.cause == "unknown" else "failed"
