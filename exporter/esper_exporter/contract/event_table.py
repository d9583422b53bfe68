"""The one table of events: their names, payloads, how they are recognised, and who applies them.

A new event is a payload class, a function in the state that applies it, and a row here. A row that
lacks something is an error when the table, or the state, is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from esper_exporter.contract.analytics import AnalyticsSnapshotPayload, CounterfactualMatrixPayload
from esper_exporter.contract.infra import (
    AllocatorStatsPayload,
    InfrastructureSnapshotPayload,
    MemoryWarningPayload,
    PhaseProfileReport,
)
from esper_exporter.contract.kasmina import (
    MorphologyCausalLogPayload,
    SeedFossilizedPayload,
    SeedGateEvaluatedPayload,
    SeedGerminatedPayload,
    SeedPrunedPayload,
    SeedStageChangedPayload,
    TopologyManifestPayload,
)
from esper_exporter.contract.simic import (
    AnomalyDetectedPayload,
    CheckpointLoadedPayload,
    EpisodeOutcomePayload,
    PerformanceDegradationPayload,
    RewardHackingSuspectedPayload,
    TrainingStartedPayload,
    TrendDetectedPayload,
)
from esper_exporter.contract.tamiyo import TamiyoInitiatedPayload, TamiyoPolicyUpdatePayload
from esper_exporter.contract.tolaria import (
    TolariaBatchPayload,
    TolariaEpochPayload,
    TolariaRollbackPayload,
)


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event.

    ``apply`` names the function that brings it into a run's state, as ``module.function`` below
    `esper_exporter.state`; the contract knows nothing of the state, so the state looks it up.
    """

    name: str
    payload: type[msgspec.Struct]
    apply: str
    aliases: tuple[str, ...] = ()
    """Older names; during a migration the same event is emitted under both."""
    identity: tuple[str, ...] = ()
    """Payload fields that recognise the same event under another of its names."""
    latest: str | None = None
    """Attribute of the run's state that holds the payload of the last one, for metrics."""
    payload_optional: bool = False
    group_unreliable: bool = False
    """The trainer emits it with group "default" whatever the run's group is."""
    begins_run: bool = False
    resumes_run: bool = False
    reports_faults: bool = False
    """Its latches are worth saving from an event that cannot be read whole."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it comes under, the present one first."""
        return (self.name, *self.aliases)


class IncompleteEventType(Exception):
    """A row of the table lacks something; the message says which row and what."""


def build(rows: Iterable[EventType]) -> Mapping[str, EventType]:
    """The table by every name. Raises IncompleteEventType."""
    table: dict[str, EventType] = {}
    for row in rows:
        if not (isinstance(row.payload, type) and issubclass(row.payload, msgspec.Struct)):
            raise IncompleteEventType(f"{row.name} has no payload class (a msgspec.Struct)")
        if row.apply.count(".") != 1:
            raise IncompleteEventType(f"{row.name} does not say who applies it (module.function)")
        unknown = set(row.identity) - set(row.payload.__struct_fields__)
        if unknown:
            raise IncompleteEventType(
                f"{row.name} is recognised by {sorted(unknown)}, which {row.payload.__name__} lacks"
            )
        if row.aliases and not row.identity:
            raise IncompleteEventType(f"{row.name} has aliases and no identity to recognise them")
        for name in row.names:
            if name in table:
                raise IncompleteEventType(f"{name} stands twice in the table of events")
            table[name] = row
    return table


def _anomaly(name: str, *, reports_faults: bool = False) -> EventType:
    return EventType(
        name, AnomalyDetectedPayload, "apply_run.apply_anomaly", reports_faults=reports_faults
    )


def _trend(name: str) -> EventType:
    return EventType(name, TrendDetectedPayload, "apply_run.apply_trend", latest="trend")


BY_NAME: Mapping[str, EventType] = build(
    (
        EventType(
            "TRAINING_STARTED",
            TrainingStartedPayload,
            "apply_run.apply_training_started",
            latest="started",
            begins_run=True,
        ),
        EventType(
            "CHECKPOINT_LOADED",
            CheckpointLoadedPayload,
            "apply_run.apply_checkpoint_loaded",
            latest="checkpoint",
            payload_optional=True,
            resumes_run=True,
        ),
        EventType(
            "TAMIYO_POLICY_UPDATE",
            TamiyoPolicyUpdatePayload,
            "apply_policy.apply_policy_update",
            aliases=("PPO_UPDATE_COMPLETED",),
            identity=(
                *("batch", "ppo_update_idx", "policy_loss", "value_loss", "entropy"),
                *("kl_divergence", "clip_fraction"),
            ),
            latest="update",
            reports_faults=True,
        ),
        EventType(
            "TAMIYO_INITIATED",
            TamiyoInitiatedPayload,
            "apply_policy.apply_tamiyo_initiated",
            group_unreliable=True,
        ),
        EventType(
            "TOLARIA_EPOCH_COMPLETED",
            TolariaEpochPayload,
            "apply_host.apply_epoch",
            aliases=("EPOCH_COMPLETED",),
            identity=("env_id", "inner_epoch", "episode_idx", "val_accuracy", "val_loss"),
        ),
        EventType(
            "TOLARIA_BATCH_COMPLETED",
            TolariaBatchPayload,
            "apply_host.apply_batch",
            aliases=("BATCH_EPOCH_COMPLETED",),
            identity=("batch_idx", "episodes_completed", "avg_accuracy", "avg_reward"),
            latest="batch",
        ),
        EventType(
            "TOLARIA_ROLLBACK",
            TolariaRollbackPayload,
            "apply_host.apply_rollback",
            aliases=("GOVERNOR_ROLLBACK",),
            identity=("env_id", "reason", "episode_idx", "loss_at_panic"),
            latest="rollback",
            group_unreliable=True,
        ),
        EventType("SEED_GERMINATED", SeedGerminatedPayload, "apply_seed.apply_germinated"),
        EventType("SEED_STAGE_CHANGED", SeedStageChangedPayload, "apply_seed.apply_stage_changed"),
        EventType(
            "SEED_GATE_EVALUATED", SeedGateEvaluatedPayload, "apply_seed.apply_gate_evaluated"
        ),
        EventType("SEED_FOSSILIZED", SeedFossilizedPayload, "apply_seed.apply_fossilized"),
        EventType("SEED_PRUNED", SeedPrunedPayload, "apply_seed.apply_pruned"),
        EventType(
            "MORPHOLOGY_CAUSAL_LOG", MorphologyCausalLogPayload, "apply_run.apply_morphology"
        ),
        EventType(
            "TOPOLOGY_MANIFEST_RECORDED",
            TopologyManifestPayload,
            "apply_run.apply_topology_manifest",
        ),
        _trend("PLATEAU_DETECTED"),
        _trend("DEGRADATION_DETECTED"),
        _trend("IMPROVEMENT_DETECTED"),
        _anomaly("GRADIENT_ANOMALY"),
        _anomaly("GRADIENT_PATHOLOGY_DETECTED"),
        _anomaly("RATIO_EXPLOSION_DETECTED"),
        _anomaly("RATIO_COLLAPSE_DETECTED"),
        _anomaly("VALUE_COLLAPSE_DETECTED"),
        _anomaly("NUMERICAL_INSTABILITY_DETECTED", reports_faults=True),
        EventType(
            "PERFORMANCE_DEGRADATION",
            PerformanceDegradationPayload,
            "apply_run.apply_performance_degradation",
            latest="degradation",
        ),
        EventType(
            "REWARD_HACKING_SUSPECTED",
            RewardHackingSuspectedPayload,
            "apply_run.apply_reward_hacking",
            latest="hacking",
            group_unreliable=True,
        ),
        EventType("EPISODE_OUTCOME", EpisodeOutcomePayload, "apply_run.apply_episode_outcome"),
        EventType(
            "ANALYTICS_SNAPSHOT", AnalyticsSnapshotPayload, "apply_analytics.apply_analytics"
        ),
        EventType(
            "COUNTERFACTUAL_MATRIX_COMPUTED",
            CounterfactualMatrixPayload,
            "apply_analytics.apply_counterfactual",
        ),
        EventType("PHASE_PROFILE_COMPLETED", PhaseProfileReport, "apply_run.apply_phase_profile"),
        EventType(
            "MEMORY_WARNING",
            MemoryWarningPayload,
            "apply_run.apply_memory_warning",
            latest="memory_warning",
        ),
        EventType("ALLOCATOR_STATS", AllocatorStatsPayload, "apply_run.apply_allocator_stats"),
        EventType(
            "INFRASTRUCTURE_SNAPSHOT",
            InfrastructureSnapshotPayload,
            "apply_run.apply_infrastructure",
            latest="infrastructure",
        ),
    )
)
"""Event types by every name that they come under."""

TYPES: Mapping[str, EventType] = {row.name: row for row in BY_NAME.values()}
"""Event types by their present name."""

ALIASES: Mapping[str, str] = {alias: row.name for row in TYPES.values() for alias in row.aliases}
"""Older name → present name."""


def canonical(name: str) -> str:
    """The present name of an event type, whichever of its names is given."""
    return ALIASES.get(name, name)
