"""Analytics snapshots and what they nest: decisions, rewards, observations, attribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Label, Seed, Text, TextFloat, Whole
from esper_exporter.contract.unexported import (
    COUNTED,
    LABEL,
    POSITION,
    SAME,
    STATE,
    TEXT_ONLY,
    Unexported,
)
from esper_exporter.contract.vocabulary import CHOSEN_IN, HEADS, SPELLINGS

if TYPE_CHECKING:

    class HeadTelemetry(msgspec.Struct, frozen=True, gc=False):
        """Confidence (a probability) and entropy (share of the maximum) of each head."""

else:
    HeadTelemetry = msgspec.defstruct(
        "HeadTelemetry",
        [
            (f"{head}_{what}", float | None, None)
            for what in ("confidence", "entropy")
            for head in SPELLINGS.values()
        ],
        namespace={
            "__doc__": "Confidence (a probability) and entropy (share of the maximum) of heads."
        },
        module=__name__,
        frozen=True,
        gc=False,
    )


class RewardComponentsTelemetry(msgspec.Struct, frozen=True, gc=False):
    """One step's reward, taken apart."""

    base_acc_delta: float | None = None
    seed_contribution: float | None = None
    bounded_attribution: float | None = None
    progress_since_germination: float | None = None
    stable_val_acc: float | None = None
    attribution_discount: float | None = None
    ratio_penalty: float | None = None
    escrow_credit_prev: float | None = None
    escrow_credit_target: float | None = None
    escrow_delta: float | None = None
    escrow_credit_next: float | None = None
    escrow_forfeit: float | None = None
    compute_rent: float | None = None
    alpha_shock: float | None = None
    blending_warning: float | None = None
    holding_warning: float | None = None
    stage_bonus: float | None = None
    pbrs_bonus: float | None = None
    synergy_bonus: float | None = None
    action_shaping: float | None = None
    terminal_bonus: float | None = None
    fossilize_terminal_bonus: float | None = None
    hindsight_credit: float | None = None
    num_fossilized_seeds: Whole | None = None
    num_contributing_fossilized: Whole | None = None
    occupancy_rent: float | None = None
    fossilized_rent: float | None = None
    n_active_seeds: Whole | None = None
    timing_discount: float | None = None
    drip_this_epoch: float | None = None
    drip_immediate_bonus: float | None = None
    drip_deferred_total: float | None = None
    num_drip_sources: Whole | None = None
    action_name: str | None = None
    action_success: bool | None = None
    seed_stage: Whole | None = None
    epoch: Whole | None = None
    val_acc: float | None = None
    acc_at_germination: float | None = None
    host_baseline_acc: float | None = None
    growth_ratio: float | None = None
    total_reward: float | None = None
    unexported: ClassVar[Unexported] = {
        STATE + "envs[{env_id}].reward_components": (
            "base_acc_delta seed_contribution bounded_attribution stable_val_acc ratio_penalty"
            " escrow_credit_prev escrow_credit_target escrow_delta escrow_credit_next"
            " escrow_forfeit compute_rent alpha_shock blending_warning holding_warning stage_bonus"
            " fossilize_terminal_bonus hindsight_credit num_fossilized_seeds val_acc total_reward"
        ),
        COUNTED + "esper_tamiyo_actions_total": "action_success",
        "a number for a stage; esper_kasmina_slot_stage": "seed_stage",
        POSITION: "epoch",
    }


class ObservationStatsTelemetry(msgspec.Struct, frozen=True, gc=False):
    """Health of the policy's inputs; the ``_pct`` fields are shares, 0 to 1."""

    slot_features_mean: float | None = None
    slot_features_std: float | None = None
    host_features_mean: float | None = None
    host_features_std: float | None = None
    context_features_mean: float | None = None
    context_features_std: float | None = None
    outlier_pct: float | None = None
    near_clip_pct: float | None = None
    clip_pct: float | None = None
    nan_count: Whole | None = None
    inf_count: Whole | None = None
    nan_pct: float | None = None
    inf_pct: float | None = None
    normalization_drift: float | None = None
    batch_size: Whole | None = None


class AnalyticsSnapshot(msgspec.Struct, frozen=True, gc=False):
    """A snapshot of one of several kinds; ``kind`` says which fields matter."""

    kind: str
    action_counts: dict[Label, Whole] | None = None
    env_id: EnvId | None = None
    episode_idx: Whole | None = None
    total_reward: float | None = None
    action_name: str | None = None
    action_confidence: float | None = None
    head_telemetry: HeadTelemetry | None = None
    value_estimate: float | None = None
    slot_id: str | None = None
    blueprint_id: str | None = None
    style: str | None = None
    blend_id: str | None = None
    tempo_idx: Whole | None = None
    alpha_target: float | None = None
    alpha_speed: str | None = None
    alpha_curve: str | None = None
    alpha_algorithm: str | None = None
    alpha_algorithm_selected: str | None = None
    action_success: bool | None = None
    base_acc_delta: float | None = None
    bounded_attribution: float | None = None
    compute_rent: float | None = None
    stage_bonus: float | None = None
    ratio_penalty: float | None = None
    alpha_shock: float | None = None
    reward_components: RewardComponentsTelemetry | None = None
    observation_stats: ObservationStatsTelemetry | None = None
    slot_states: dict[Label, str] | None = None
    alternatives: tuple[tuple[str, float], ...] | None = None
    decision_entropy: TextFloat | None = None
    batch: Whole | None = None
    episodes_completed: Whole | None = None
    fps: float | None = None
    step_time_ms: float | None = None
    dataloader_wait_ms: float | None = None
    summary: dict[Label, float] | None = None
    hindsight_credit: float | None = None
    scaffold_count: Whole | None = None
    avg_scaffold_delay: float | None = None
    mask_hits: dict[Label, Whole] | None = None
    mask_total: dict[Label, Whole] | None = None
    inner_epoch: Whole | None = None
    accuracy: float | None = None
    host_accuracy: float | None = None
    entropy: float | None = None
    kl_divergence: float | None = None
    explained_variance: float | None = None
    seeds_created: Whole | None = None
    seeds_fossilized: Whole | None = None
    skipped_update: bool | None = None
    rollback_attempt_count: Whole | None = None
    rollback_unattributed_count: Whole | None = None
    summary_table: Text | None = None
    scoreboard_tables: dict[Whole, Text] | None = None
    mode: str | None = None
    task: str | None = None
    topology: str | None = None
    device: str | None = None
    slots: tuple[str, ...] | None = None
    episodes: Whole | None = None
    max_epochs: Whole | None = None
    max_batches: Whole | None = None
    min_fossilize_improvement: float | None = None
    max_seeds: Whole | None = None
    reward_mode: str | None = None
    telemetry_lifecycle_only: bool | None = None
    telemetry_level: str | None = None
    episode_id: str | None = None
    episode: Whole | None = None
    episodes_total: Whole | None = None
    base_seed: Seed | None = None
    final_accuracy: float | None = None
    shapley_values: dict[Label, dict[Label, float]] | None = None
    num_slots: Whole | None = None
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: (
            "episode_idx batch episodes_completed inner_epoch episode episodes_total episodes"
        ),
        "counted already, decision by decision, in esper_tamiyo_actions_total": "action_counts",
        COUNTED + "esper_tamiyo_actions_total": "action_success",
        COUNTED + "esper_tamiyo_masked_decisions_total": " ".join(f"{h}_masked" for h in HEADS),
        COUNTED + "esper_tamiyo_updates_skipped_total": "skipped_update",
        "the choice itself, not a measurement; esper_tamiyo_actions_total counts operations": (
            "tempo_idx alpha_target"
        ),
        "histograms: esper_tamiyo_decision_confidence_ratio, …_entropy_ratio": "head_telemetry",
        STATE + "esper_simic_reward_*": (
            "base_acc_delta bounded_attribution compute_rent stage_bonus ratio_penalty alpha_shock"
            " hindsight_credit scaffold_count avg_scaffold_delay"
        ),
        STATE + "esper_tamiyo_observation_*": "observation_stats",
        "has no schema": "summary mask_hits mask_total",
        SAME + "in the policy update or at the batch's end": (
            "accuracy host_accuracy entropy kl_divergence explained_variance"
            " rollback_attempt_count rollback_unattributed_count final_accuracy"
        ),
        TEXT_ONLY + "; reported by TRAINING_STARTED": (
            "max_epochs max_batches min_fossilize_improvement max_seeds telemetry_lifecycle_only"
            " base_seed num_slots"
        ),
    }


_OF_HEADS: list[tuple[str, Any, None]] = [
    *((f"{head}_masked", bool | None, None) for head in HEADS),
    *(
        (name, str | None, None)
        for name in CHOSEN_IN.values()
        if name not in AnalyticsSnapshot.__struct_fields__
    ),
]
if TYPE_CHECKING:
    AnalyticsSnapshotPayload = AnalyticsSnapshot
else:
    # What decisions carry of each head of the vocabulary.
    AnalyticsSnapshotPayload = msgspec.defstruct(
        "AnalyticsSnapshotPayload",
        _OF_HEADS,
        bases=(AnalyticsSnapshot,),
        namespace={"__doc__": "An analytics snapshot as events carry it."},
        module=__name__,
        frozen=True,
        gc=False,
    )


class CounterfactualConfigTelemetry(msgspec.Struct, frozen=True, gc=False):
    """Accuracy (percent) with a choice of seeds switched on."""

    seed_mask: tuple[bool, ...]
    accuracy: float


class CounterfactualMatrixPayload(msgspec.Struct, frozen=True, gc=False):
    """Accuracies of one environment with seeds switched on and off."""

    env_id: EnvId
    slot_ids: tuple[str, ...]
    configs: tuple[CounterfactualConfigTelemetry, ...]
    episode_idx: Whole | None = None
    strategy: str | None = None
    compute_time_ms: float | None = None
    unexported: ClassVar[Unexported] = {
        "a matrix of up to 2^slots rows; the snapshot sums it up": "configs",
        LABEL: "env_id",
        POSITION: "episode_idx",
        STATE + "esper_simic_counterfactual_duration_seconds": "compute_time_ms",
    }


EVENTS = (
    EventType("ANALYTICS_SNAPSHOT", AnalyticsSnapshotPayload, "apply_analytics.apply_analytics"),
    EventType(
        "COUNTERFACTUAL_MATRIX_COMPUTED",
        CounterfactualMatrixPayload,
        "apply_analytics.apply_counterfactual",
    ),
)
