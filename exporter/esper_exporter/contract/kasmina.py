"""Kasmina, the seeds: their life cycle and the changes of the networks' shape."""

from __future__ import annotations

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Seed, Text, Whole


class SeedGerminatedPayload(msgspec.Struct, frozen=True, gc=False):
    """A seed was put into a slot."""

    slot_id: str
    env_id: EnvId
    blueprint_id: str
    params: Whole
    episode_idx: Whole | None = None
    alpha: float | None = None
    grad_ratio: float | None = None
    has_vanishing: bool | None = None
    has_exploding: bool | None = None
    epochs_in_stage: Whole | None = None
    blend_tempo_epochs: Whole | None = None
    alpha_curve: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: Seed | None = None


class SeedStageChangedPayload(msgspec.Struct, frozen=True, gc=False):
    """A seed went from one stage to another."""

    slot_id: str
    env_id: EnvId
    from_stage: str
    to_stage: str
    episode_idx: Whole | None = None
    alpha: float | None = None
    accuracy_delta: float | None = None
    epochs_in_stage: Whole | None = None
    grad_ratio: float | None = None
    has_vanishing: bool | None = None
    has_exploding: bool | None = None
    alpha_curve: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: Seed | None = None


class SeedFossilizedPayload(msgspec.Struct, frozen=True, gc=False):
    """A seed became part of its host. Improvement is percent points."""

    slot_id: str
    env_id: EnvId
    blueprint_id: str
    improvement: float
    params_added: Whole
    episode_idx: Whole | None = None
    alpha: float | None = None
    epochs_total: Whole | None = None
    counterfactual: float | None = None
    blending_delta: float | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: Seed | None = None


class SeedPrunedPayload(msgspec.Struct, frozen=True, gc=False):
    """A seed was removed. Improvement is percent points."""

    slot_id: str
    env_id: EnvId
    reason: str
    episode_idx: Whole | None = None
    blueprint_id: str | None = None
    improvement: float | None = None
    auto_pruned: bool | None = None
    epochs_total: Whole | None = None
    counterfactual: float | None = None
    blending_delta: float | None = None
    initiator: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: Seed | None = None


class SeedGateEvaluatedPayload(msgspec.Struct, frozen=True, gc=False):
    """A gate between two stages was tried."""

    slot_id: str
    env_id: EnvId
    gate: str
    passed: bool
    target_stage: str
    checks_passed: tuple[str, ...]
    checks_failed: tuple[str, ...]
    episode_idx: Whole | None = None
    message: Text | None = None


class MorphologyCausalLogPayload(msgspec.Struct, frozen=True, gc=False):
    """One step of a change of shape: proposal, verdict, mutation …"""

    phase: str
    env_id: EnvId
    slot_id: str
    operation: str
    action_id: str
    proposal_id: str
    verdict_id: str
    mutation_id: str
    observation_hash: str
    rng_stream: str
    rng_seed: Seed
    topology: str
    blueprint_id: str | None
    governor_approved: bool | None = None
    governor_reason: str | None = None
    governor_blocked_factor: str | None = None
    watch_window_evidence: float | None = None
    linked_event_id: str | None = None


class TopologyManifestPayload(msgspec.Struct, frozen=True, gc=False):
    """A topology was recorded, or a replay of one was compared."""

    manifest_role: str
    proof_baseline_pair_id: str
    topology_manifest_version: Whole
    topology_manifest_hash: str
    topology_manifest_json: Text
    task: str
    host_topology: str
    slot_config_hash: str
    slot_count: Whole
    fossilized_seed_count: Whole
    topology_delta_count: Whole
    source_run_dir: str | None = None
    source_group_id: str | None = None
    source_episode_idx: Whole | None = None
    source_event_id: str | None = None
    source_topology_manifest_hash: str | None = None
    replay_weight_policy: str | None = None
    replay_env_id: Whole | None = None
    replay_episode_idx: Whole | None = None
    replayed_topology_manifest_hash: str | None = None
    manifest_match: bool | None = None


EVENTS = (
    EventType("SEED_GERMINATED", SeedGerminatedPayload, "apply_seed.apply_germinated"),
    EventType("SEED_STAGE_CHANGED", SeedStageChangedPayload, "apply_seed.apply_stage_changed"),
    EventType("SEED_GATE_EVALUATED", SeedGateEvaluatedPayload, "apply_seed.apply_gate_evaluated"),
    EventType("SEED_FOSSILIZED", SeedFossilizedPayload, "apply_seed.apply_fossilized"),
    EventType("SEED_PRUNED", SeedPrunedPayload, "apply_seed.apply_pruned"),
    EventType("MORPHOLOGY_CAUSAL_LOG", MorphologyCausalLogPayload, "apply_run.apply_morphology"),
    EventType(
        "TOPOLOGY_MANIFEST_RECORDED",
        TopologyManifestPayload,
        "apply_run.apply_topology_manifest",
    ),
)
