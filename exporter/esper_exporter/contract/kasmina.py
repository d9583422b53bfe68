"""Kasmina, the seeds: their life cycle and the changes of the networks' shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedGerminatedPayload:
    """A seed was put into a slot."""

    slot_id: str
    env_id: int
    blueprint_id: str
    params: int
    episode_idx: int | None = None
    alpha: float | None = None
    grad_ratio: float | None = None
    has_vanishing: bool | None = None
    has_exploding: bool | None = None
    epochs_in_stage: int | None = None
    blend_tempo_epochs: int | None = None
    alpha_curve: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: int | None = None


@dataclass(frozen=True)
class SeedStageChangedPayload:
    """A seed went from one stage to another."""

    slot_id: str
    env_id: int
    from_stage: str
    to_stage: str
    episode_idx: int | None = None
    alpha: float | None = None
    accuracy_delta: float | None = None
    epochs_in_stage: int | None = None
    grad_ratio: float | None = None
    has_vanishing: bool | None = None
    has_exploding: bool | None = None
    alpha_curve: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: int | None = None


@dataclass(frozen=True)
class SeedFossilizedPayload:
    """A seed became part of its host. Improvement is percent points."""

    slot_id: str
    env_id: int
    blueprint_id: str
    improvement: float
    params_added: int
    episode_idx: int | None = None
    alpha: float | None = None
    epochs_total: int | None = None
    counterfactual: float | None = None
    blending_delta: float | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: int | None = None


@dataclass(frozen=True)
class SeedPrunedPayload:
    """A seed was removed. Improvement is percent points."""

    slot_id: str
    env_id: int
    reason: str
    episode_idx: int | None = None
    blueprint_id: str | None = None
    improvement: float | None = None
    auto_pruned: bool | None = None
    epochs_total: int | None = None
    counterfactual: float | None = None
    blending_delta: float | None = None
    initiator: str | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: int | None = None


@dataclass(frozen=True)
class SeedGateEvaluatedPayload:
    """A gate between two stages was tried."""

    slot_id: str
    env_id: int
    gate: str
    passed: bool
    target_stage: str
    checks_passed: tuple[str, ...]
    checks_failed: tuple[str, ...]
    episode_idx: int | None = None
    message: str | None = None


@dataclass(frozen=True)
class MorphologyCausalLogPayload:
    """One step of a change of shape: proposal, verdict, mutation …"""

    phase: str
    env_id: int
    slot_id: str
    operation: str
    action_id: str
    proposal_id: str
    verdict_id: str
    mutation_id: str
    observation_hash: str
    rng_stream: str
    rng_seed: int
    topology: str
    blueprint_id: str | None
    governor_approved: bool | None = None
    governor_reason: str | None = None
    governor_blocked_factor: str | None = None
    watch_window_evidence: float | None = None
    linked_event_id: str | None = None


@dataclass(frozen=True)
class TopologyManifestPayload:
    """A topology was recorded, or a replay of one was compared."""

    manifest_role: str
    proof_baseline_pair_id: str
    topology_manifest_version: int
    topology_manifest_hash: str
    topology_manifest_json: str
    task: str
    host_topology: str
    slot_config_hash: str
    slot_count: int
    fossilized_seed_count: int
    topology_delta_count: int
    source_run_dir: str | None = None
    source_group_id: str | None = None
    source_episode_idx: int | None = None
    source_event_id: str | None = None
    source_topology_manifest_hash: str | None = None
    replay_weight_policy: str | None = None
    replay_env_id: int | None = None
    replay_episode_idx: int | None = None
    replayed_topology_manifest_hash: str | None = None
    manifest_match: bool | None = None
