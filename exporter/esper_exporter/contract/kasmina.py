"""Kasmina, the seeds: their life cycle and the changes of the networks' shape."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Seed, Text, Whole
from esper_exporter.contract.unexported import COUNTED, IDENTITY, LABEL, POSITION, STATE, Unexported


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
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        IDENTITY: "rng_seed",
        STATE + "esper_kasmina_seed_*": (
            "params alpha grad_ratio has_vanishing has_exploding epochs_in_stage blend_tempo_epochs"
        ),
    }


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
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        IDENTITY: "rng_seed",
        STATE + "esper_kasmina_seed_*": (
            "alpha accuracy_delta epochs_in_stage grad_ratio has_vanishing has_exploding"
        ),
    }


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
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        IDENTITY: "rng_seed",
        STATE + "esper_kasmina_seed_*": (
            "improvement params_added alpha epochs_total counterfactual"
        ),
        "accuracy_delta over the blending stage alone, which"
        " esper_kasmina_seed_accuracy_delta_ratio showed while it lasted": "blending_delta",
    }


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
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        IDENTITY: "rng_seed",
        STATE + "esper_kasmina_seed_*": "improvement auto_pruned epochs_total counterfactual",
        "accuracy_delta over the blending stage alone, which"
        " esper_kasmina_seed_accuracy_delta_ratio showed while it lasted": "blending_delta",
    }


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
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        COUNTED + "esper_kasmina_gate_evaluations_total": "passed",
    }


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
    unexported: ClassVar[Unexported] = {
        POSITION: "env_id",
        IDENTITY: "rng_seed",
        COUNTED + "esper_kasmina_morphology_events_total": (
            "governor_approved watch_window_evidence"
        ),
    }


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
    unexported: ClassVar[Unexported] = {
        "describes a recorded topology, not the training;"
        " esper_kasmina_topology_manifests_total counts them and their matches": (
            "topology_manifest_version slot_count fossilized_seed_count topology_delta_count"
            " source_episode_idx replay_env_id replay_episode_idx manifest_match"
        ),
    }


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
