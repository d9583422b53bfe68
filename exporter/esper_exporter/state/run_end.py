"""How a run ends: its batches are done, another group's run begins, or its process ends.

A recording that stops short of the last batch ends with its last event.

The real trainer trains groups one after the other in one process and has no event for the end of
one: the first has done all its batches and says nothing more while the second trains for hours.
What ends the process then is none of the first one's.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from esper_exporter.state.failure_reason import Reason
from esper_exporter.state.run import RunState

BATCH = "TOLARIA_BATCH_COMPLETED"
WORK = frozenset({BATCH, "TOLARIA_EPOCH_COMPLETED", "TAMIYO_POLICY_UPDATE"})
"""Events that only an active run emits."""


class EndedBy(Enum):
    """What a run's end was known by."""

    BATCHES = "batches"
    """It did all the batches that it was to do: it has finished."""
    GROUP = "group"
    """Another group's run began before that: nothing says how it ended."""
    RECORDING = "recording"
    """Its recording has no more events: nothing says how it ended."""
    PROCESS = "process"
    """Its process, or its exporter, ended: it has finished, or failed for a reason."""


def follow_event(state: RunState, event_type: str, when: datetime) -> bool:
    """Note what an event that has been applied says of the run's end; whether it ended it."""
    if event_type not in WORK or state.failure is not None:
        return False
    if event_type == BATCH and state.batches_done:
        return finish_batches(state, when)
    if state.ended_by in (EndedBy.BATCHES.value, EndedBy.GROUP.value, EndedBy.RECORDING.value):
        go_on(state)
    return False


def follow_snapshot(state: RunState, when: datetime) -> bool:
    """The same for an aggregated snapshot that was taken over."""
    if state.failure is not None:
        return False
    if state.batches_done:
        return finish_batches(state, when)
    if state.ended_by == EndedBy.BATCHES.value:
        go_on(state)
    return False


def finish_batches(state: RunState, when: datetime) -> bool:
    """The run has done all its batches; whether that was not known."""
    if state.finished:
        return False
    _end(state, EndedBy.BATCHES, when, finished=True)
    return True


def give_way(state: RunState, when: datetime) -> bool:
    """Another group's run begins in the process; whether this one went on until then."""
    if state.ended_at is not None:
        return False
    _end(state, EndedBy.GROUP, when, finished=False)
    return True


def end_recording(state: RunState) -> None:
    """The run's recording has no more events. What had not ended by then ended with the last."""
    if state.ended_at is None and state.failure is None and state.last_event_at is not None:
        _end(state, EndedBy.RECORDING, state.last_event_at, finished=False)


def end_with_process(state: RunState, reason: Reason | None, now: datetime) -> bool:
    """The process ends: what went on has finished (None), or failed; whether that is news.

    What failed stays failed, and what had ended before is not touched by it. A run that seemed to
    finish because its exporter was closed may still turn out to have failed.
    """
    by_process = state.ended_by == EndedBy.PROCESS.value
    if state.failure is not None or (
        state.ended_at is not None and (reason is None or not by_process)
    ):
        return False
    if reason in (Reason.EXCEPTION, Reason.UNKNOWN) and state.latched_last:
        reason = Reason.NONFINITE
    _end(state, EndedBy.PROCESS, now, finished=reason is None)
    state.failure = None if reason is None else reason.value
    return True


def restart(state: RunState) -> None:
    """The exporter was started again: reopen the runs that only its closing had ended."""
    if state.failure is None and state.ended_by == EndedBy.PROCESS.value:
        go_on(state)


def go_on(state: RunState) -> None:
    """Reopen a run that seemed to have ended."""
    state.ended_at = state.ended_by = None
    state.finished = False


def _end(state: RunState, by: EndedBy, when: datetime, *, finished: bool) -> None:
    state.ended_at = when
    state.ended_by = by.value
    state.finished = finished
