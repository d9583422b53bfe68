"""Each run in short: who it is, how it is, and its latches."""

from __future__ import annotations

from dataclasses import dataclass

from esper_exporter.state.registry import Entry


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in short."""

    run_id: str
    group_id: str
    rank: int
    """The process's rank in a distributed training."""
    task: str
    """Name of the trained task, empty when unknown."""
    state: str
    """One word: ``running``, ``finished``, ``ended`` (reason unknown), ``waiting``,
    ``superseded``, or ``failed (reason)``."""
    latches: tuple[str, ...]
    """The set latches: ``head/kind`` (``op/nan``) for heads, then sources (``gradients``)."""


def summary_of(entry: Entry) -> RunSummary:
    """A run's summary; the caller holds the state lock."""
    state = entry.state
    return RunSummary(
        run_id=state.identity.run_id,
        group_id=state.identity.group_id,
        rank=state.identity.rank,
        task=state.snapshot.task_name,
        state=_word(entry),
        latches=state.latches.lit_names(),
    )


def _word(entry: Entry) -> str:
    state = entry.state
    if state.failure is not None:
        return f"failed ({state.failure})"
    if state.finished:
        return "finished"
    if state.ended_at is not None:
        return "ended"
    if not state.active:
        return "superseded"
    return "running" if state.began else "waiting"
