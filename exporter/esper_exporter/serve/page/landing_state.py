"""The runs as the landing page shows them."""

from __future__ import annotations

from collections.abc import Iterable

from esper_exporter import __version__
from esper_exporter.serve.interfaces import LandingPage, LandingRun
from esper_exporter.state import counted
from esper_exporter.state.registry import Entry


def landing_page(entries: Iterable[Entry]) -> LandingPage:
    """The landing page for these runs; the caller holds the state lock."""
    runs = tuple(_run(entry) for entry in entries)
    return LandingPage(
        version=__version__, ready=any(run.state != "waiting" for run in runs), runs=runs
    )


def _run(entry: Entry) -> LandingRun:
    state = entry.state
    last = state.last_event_at
    return LandingRun(
        run_id=state.identity.run_id,
        group_id=state.identity.group_id,
        rank=state.identity.rank,
        task=state.snapshot.task_name or None,
        state=_word(entry),
        latches=state.latches.lit_names(),
        last_event_timestamp=last.timestamp() if last else None,
        policy_updates=int(state.tallies.get(counted.UPDATES)),
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
