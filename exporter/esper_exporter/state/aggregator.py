"""Events → state: one aggregator per (run, group), and the one place where events meet it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from esper_exporter.contract.event_table import TYPES, IncompleteEventType
from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.events import Event
from esper_exporter.contract.simic import AnomalyDetectedPayload
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.state import apply_policy as policy
from esper_exporter.state import apply_run as run_events
from esper_exporter.state.run import RunState
from esper_exporter.state.summary import refresh_summary

Handler = Callable[[RunState, Event, Any], None]


def handler_of(row: EventType) -> Handler:
    """The function that applies an event type. Raises IncompleteEventType."""
    module, _, name = row.apply.partition(".")
    try:
        found = getattr(import_module(f"esper_exporter.state.{module}"), name)
    except (ImportError, AttributeError) as problem:
        raise IncompleteEventType(
            f"{row.name} is applied by esper_exporter.state.{row.apply}, which does not exist"
        ) from problem
    handler: Handler = found
    latest = row.latest
    if latest is None or latest in RunState.__slots__:
        return handler

    def keep_and_apply(run: RunState, event: Event, payload: Any) -> None:
        run.latest[latest] = payload
        handler(run, event, payload)

    return keep_and_apply


_HANDLERS = {row.name: handler_of(row) for row in TYPES.values()}


def _see(state: RunState, event: Event) -> None:
    last = state.last_event_at
    when = event.timestamp
    if last is None or when > last:
        state.last_event_at = when
    snapshot = state.bare_snapshot
    snapshot.total_events_received += 1
    state.recent_events.append((event, snapshot.current_episode))


class Aggregator:
    """Owns one run's state and brings events into it, in the order they come.

    Not thread-safe: the owner calls it under one lock.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state

    def apply(self, event: Event) -> None:
        """Bring one event into the state."""
        state = self.state
        name, counts = event.name, state.event_counts
        try:
            counts[name] += 1
        except KeyError:
            counts[name] = 1
        _see(state, event)
        _HANDLERS[event.type](state, event, event.data)
        state.touched.summary = True

    def salvage(self, event: Event) -> None:
        """Take from an event that could not be read whole what must not be lost: its latches."""
        _see(self.state, event)
        if isinstance(event.data, TamiyoPolicyUpdatePayload):
            policy.light_latches(self.state, event, event.data)
        elif isinstance(event.data, AnomalyDetectedPayload):
            run_events.light_anomaly(self.state, event, event.data)

    def refresh(self) -> None:
        """Bring the run's summary up to date, if anything happened since."""
        if self.state.touched.summary:
            self.state.touched.summary = False
            refresh_summary(self.state)
