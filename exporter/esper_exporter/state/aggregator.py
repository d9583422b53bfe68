"""Events → state: one aggregator per (run, group), and the one place where events meet it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from esper_exporter.contract.events import Event
from esper_exporter.contract.simic import AnomalyDetectedPayload
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.state import apply_analytics as analytics
from esper_exporter.state import apply_host as host
from esper_exporter.state import apply_policy as policy
from esper_exporter.state import apply_run as run_events
from esper_exporter.state import apply_seed as seed
from esper_exporter.state import counted
from esper_exporter.state.run import RunState
from esper_exporter.state.summary import refresh_summary

Handler = Callable[[RunState, Event, Any], None]

HANDLERS: dict[str, Handler] = {
    "TRAINING_STARTED": run_events.apply_training_started,
    "CHECKPOINT_LOADED": run_events.apply_checkpoint_loaded,
    "TAMIYO_POLICY_UPDATE": policy.apply_policy_update,
    "TAMIYO_INITIATED": policy.apply_tamiyo_initiated,
    "TOLARIA_EPOCH_COMPLETED": host.apply_epoch,
    "TOLARIA_BATCH_COMPLETED": host.apply_batch,
    "TOLARIA_ROLLBACK": host.apply_rollback,
    "SEED_GERMINATED": seed.apply_germinated,
    "SEED_STAGE_CHANGED": seed.apply_stage_changed,
    "SEED_GATE_EVALUATED": seed.apply_gate_evaluated,
    "SEED_FOSSILIZED": seed.apply_fossilized,
    "SEED_PRUNED": seed.apply_pruned,
    "ANALYTICS_SNAPSHOT": analytics.apply_analytics,
    "COUNTERFACTUAL_MATRIX_COMPUTED": analytics.apply_counterfactual,
    "EPISODE_OUTCOME": run_events.apply_episode_outcome,
    "PLATEAU_DETECTED": run_events.apply_trend,
    "DEGRADATION_DETECTED": run_events.apply_trend,
    "IMPROVEMENT_DETECTED": run_events.apply_trend,
    "GRADIENT_ANOMALY": run_events.apply_anomaly,
    "GRADIENT_PATHOLOGY_DETECTED": run_events.apply_anomaly,
    "RATIO_EXPLOSION_DETECTED": run_events.apply_anomaly,
    "RATIO_COLLAPSE_DETECTED": run_events.apply_anomaly,
    "VALUE_COLLAPSE_DETECTED": run_events.apply_anomaly,
    "NUMERICAL_INSTABILITY_DETECTED": run_events.apply_anomaly,
    "PERFORMANCE_DEGRADATION": run_events.apply_performance_degradation,
    "REWARD_HACKING_SUSPECTED": run_events.apply_reward_hacking,
    "PHASE_PROFILE_COMPLETED": run_events.apply_phase_profile,
    "MEMORY_WARNING": run_events.apply_memory_warning,
    "ALLOCATOR_STATS": run_events.apply_allocator_stats,
    "INFRASTRUCTURE_SNAPSHOT": run_events.apply_infrastructure,
    "MORPHOLOGY_CAUSAL_LOG": run_events.apply_morphology,
    "TOPOLOGY_MANIFEST_RECORDED": run_events.apply_topology_manifest,
}


class Aggregator:
    """Owns one run's state and brings events into it, in the order they come.

    Not thread-safe: whoever owns it calls it under one lock.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state

    def apply(self, event: Event) -> None:
        """Bring one event into the state."""
        state = self.state
        state.tallies.add(counted.EVENTS, event.name)
        self._see(event)
        handler = HANDLERS.get(event.type)
        if handler is not None and (event.data is not None or event.type == "CHECKPOINT_LOADED"):
            handler(state, event, event.data)
        state.touched.summary = True

    def salvage(self, event: Event) -> None:
        """Take from an event that could not be read whole what must not be lost: its latches."""
        self._see(event)
        if isinstance(event.data, TamiyoPolicyUpdatePayload):
            policy.light_latches(self.state, event, event.data)
        elif isinstance(event.data, AnomalyDetectedPayload):
            run_events.light_anomaly(self.state, event, event.data)

    def _see(self, event: Event) -> None:
        state = self.state
        last = state.last_event_at
        if last is None or event.timestamp > last:
            state.last_event_at = event.timestamp
        snapshot = state.snapshot
        snapshot.total_events_received += 1
        state.recent_events.append((event, snapshot.current_episode))

    def refresh(self) -> None:
        """Bring the run's summary up to date, if anything happened since."""
        if self.state.touched.summary:
            self.state.touched.summary = False
            refresh_summary(self.state)
