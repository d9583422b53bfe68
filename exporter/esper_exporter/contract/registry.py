"""Which payload each event type carries."""

from __future__ import annotations

from collections.abc import Mapping

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

PAYLOADS: Mapping[str, type] = {
    "TRAINING_STARTED": TrainingStartedPayload,
    "CHECKPOINT_LOADED": CheckpointLoadedPayload,
    "TAMIYO_POLICY_UPDATE": TamiyoPolicyUpdatePayload,
    "TAMIYO_INITIATED": TamiyoInitiatedPayload,
    "TOLARIA_EPOCH_COMPLETED": TolariaEpochPayload,
    "TOLARIA_BATCH_COMPLETED": TolariaBatchPayload,
    "TOLARIA_ROLLBACK": TolariaRollbackPayload,
    "SEED_GERMINATED": SeedGerminatedPayload,
    "SEED_STAGE_CHANGED": SeedStageChangedPayload,
    "SEED_GATE_EVALUATED": SeedGateEvaluatedPayload,
    "SEED_FOSSILIZED": SeedFossilizedPayload,
    "SEED_PRUNED": SeedPrunedPayload,
    "MORPHOLOGY_CAUSAL_LOG": MorphologyCausalLogPayload,
    "TOPOLOGY_MANIFEST_RECORDED": TopologyManifestPayload,
    "PLATEAU_DETECTED": TrendDetectedPayload,
    "DEGRADATION_DETECTED": TrendDetectedPayload,
    "IMPROVEMENT_DETECTED": TrendDetectedPayload,
    "GRADIENT_ANOMALY": AnomalyDetectedPayload,
    "GRADIENT_PATHOLOGY_DETECTED": AnomalyDetectedPayload,
    "RATIO_EXPLOSION_DETECTED": AnomalyDetectedPayload,
    "RATIO_COLLAPSE_DETECTED": AnomalyDetectedPayload,
    "VALUE_COLLAPSE_DETECTED": AnomalyDetectedPayload,
    "NUMERICAL_INSTABILITY_DETECTED": AnomalyDetectedPayload,
    "PERFORMANCE_DEGRADATION": PerformanceDegradationPayload,
    "REWARD_HACKING_SUSPECTED": RewardHackingSuspectedPayload,
    "EPISODE_OUTCOME": EpisodeOutcomePayload,
    "ANALYTICS_SNAPSHOT": AnalyticsSnapshotPayload,
    "COUNTERFACTUAL_MATRIX_COMPUTED": CounterfactualMatrixPayload,
    "PHASE_PROFILE_COMPLETED": PhaseProfileReport,
    "MEMORY_WARNING": MemoryWarningPayload,
    "ALLOCATOR_STATS": AllocatorStatsPayload,
    "INFRASTRUCTURE_SNAPSHOT": InfrastructureSnapshotPayload,
}
"""Canonical event type → payload class."""

WITHOUT_PAYLOAD = frozenset({"CHECKPOINT_LOADED"})
"""Types that may come without a payload."""
