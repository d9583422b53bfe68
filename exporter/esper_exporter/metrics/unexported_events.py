"""Fields of the events that no metric shows, each with the reason."""

from __future__ import annotations

from esper_exporter.contract.tamiyo import HeadUpdatePayload
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.metrics.reasons import (
    BY_OP,
    COUNTED,
    DECISION_HEADS,
    IDENTITY,
    LABEL,
    POSITION,
    SAME,
    STATE,
    TEXT_ONLY,
    each,
)

EVENT_FIELDS: dict[str, str] = {
    **each(
        SAME + "head_{head}_*: the same metrics, for heads that are not Tamiyo's",
        "HeadUpdatePayload",
        HeadUpdatePayload.__struct_fields__,
    ),
    "AllocatorStatsPayload.batch_idx": POSITION,
    **{
        f"AllocatorStatsPayload.{field}": f"in bytes, by device: {SAME}esper_torch_memory_{metric}"
        for field, metric in (
            ("allocated_bytes", "allocated_bytes"),
            ("reserved_bytes", "reserved_bytes"),
            ("fragmentation_bytes", "fragmentation_ratio, over reserved_bytes"),
        )
    },
    **each(
        LABEL,
        "AnalyticsSnapshotPayload",
        ("env_id",),
    ),
    **each(
        POSITION,
        "AnalyticsSnapshotPayload",
        (
            "episode_idx",
            "batch",
            "episodes_completed",
            "inner_epoch",
            "episode",
            "episodes_total",
            "episodes",
        ),
    ),
    "AnalyticsSnapshotPayload.action_counts": "the finished batch's mix, counted already in"
    " esper_tamiyo_actions_total",
    "AnalyticsSnapshotPayload.action_success": COUNTED + "esper_tamiyo_actions_total",
    **each(
        "the choice itself, not a measurement; esper_tamiyo_actions_total counts operations",
        "AnalyticsSnapshotPayload",
        ("tempo_idx", "alpha_target"),
    ),
    **each(
        COUNTED + "esper_tamiyo_masked_decisions_total",
        "AnalyticsSnapshotPayload",
        tuple(f"{head}_masked" for head in HEADS),
    ),
    **each(
        STATE + "esper_simic_reward_*",
        "AnalyticsSnapshotPayload",
        (
            "base_acc_delta",
            "bounded_attribution",
            "compute_rent",
            "stage_bonus",
            "ratio_penalty",
            "alpha_shock",
            "hindsight_credit",
            "scaffold_count",
            "avg_scaffold_delay",
        ),
    ),
    **each(
        "free of a schema; what matters of it comes under names of its own",
        "AnalyticsSnapshotPayload",
        ("summary", "mask_hits", "mask_total"),
    ),
    **each(
        SAME + "what the policy update and the batch's end tell",
        "AnalyticsSnapshotPayload",
        (
            "accuracy",
            "host_accuracy",
            "entropy",
            "kl_divergence",
            "explained_variance",
            "rollback_attempt_count",
            "rollback_unattributed_count",
            "final_accuracy",
        ),
    ),
    "AnalyticsSnapshotPayload.skipped_update": COUNTED + "esper_tamiyo_updates_skipped_total",
    **each(
        TEXT_ONLY + "; reported by TRAINING_STARTED",
        "AnalyticsSnapshotPayload",
        (
            "max_epochs",
            "max_batches",
            "min_fossilize_improvement",
            "max_seeds",
            "telemetry_lifecycle_only",
            "base_seed",
            "num_slots",
        ),
    ),
    **each(
        "a histogram over all decisions: esper_tamiyo_decision_confidence_ratio",
        "HeadTelemetry",
        tuple(f"{head}_confidence" for head in DECISION_HEADS),
    ),
    **each(
        "a histogram over all decisions: esper_tamiyo_decision_entropy_ratio",
        "HeadTelemetry",
        tuple(f"{head}_entropy" for head in DECISION_HEADS),
    ),
    **each(
        STATE + "envs[{env_id}].reward_components",
        "RewardComponentsTelemetry",
        (
            "base_acc_delta",
            "seed_contribution",
            "bounded_attribution",
            "stable_val_acc",
            "ratio_penalty",
            "escrow_credit_prev",
            "escrow_credit_target",
            "escrow_delta",
            "escrow_credit_next",
            "escrow_forfeit",
            "compute_rent",
            "alpha_shock",
            "blending_warning",
            "holding_warning",
            "stage_bonus",
            "fossilize_terminal_bonus",
            "hindsight_credit",
            "num_fossilized_seeds",
            "val_acc",
            "total_reward",
        ),
    ),
    "RewardComponentsTelemetry.action_success": COUNTED + "esper_tamiyo_actions_total",
    "RewardComponentsTelemetry.seed_stage": "a number for a stage; esper_kasmina_slot_stage",
    "RewardComponentsTelemetry.epoch": POSITION,
    **each(
        STATE + "esper_tamiyo_observation_*",
        "ObservationStatsTelemetry",
        (
            "slot_features_mean",
            "slot_features_std",
            "host_features_mean",
            "host_features_std",
            "context_features_mean",
            "context_features_std",
            "outlier_pct",
            "near_clip_pct",
            "clip_pct",
            "nan_count",
            "inf_count",
            "nan_pct",
            "inf_pct",
            "normalization_drift",
            "batch_size",
        ),
    ),
    "CounterfactualMatrixPayload.env_id": LABEL,
    "CounterfactualMatrixPayload.episode_idx": POSITION,
    "CounterfactualMatrixPayload.compute_time_ms": STATE
    + "esper_simic_counterfactual_duration_seconds",
    **each(
        "a row of a matrix of up to 2^slots; the snapshot sums it up",
        "CounterfactualConfigTelemetry",
        ("seed_mask", "accuracy"),
    ),
    **each(POSITION, "TrendDetectedPayload", ("batch_idx", "episodes_completed")),
    **each(
        SAME + "esper_tolaria_rolling_accuracy_ratio at the time",
        "TrendDetectedPayload",
        ("rolling_avg_accuracy", "prev_rolling_avg_accuracy"),
    ),
    **each(POSITION, "EpisodeOutcomePayload", ("episode_idx",)),
    "EpisodeOutcomePayload.env_id": LABEL,
    **each(
        STATE + "esper_simic_steps_per_germination, …_prune, …_fossilization",
        "EpisodeOutcomePayload",
        ("germinate_count", "prune_count", "fossilize_count"),
    ),
    **each(
        POSITION,
        "AnomalyDetectedPayload",
        ("episode", "batch", "inner_epoch", "total_episodes"),
    ),
    "MorphologyCausalLogPayload.env_id": POSITION,
    "MorphologyCausalLogPayload.rng_seed": IDENTITY,
    **each(
        COUNTED + "esper_kasmina_morphology_events_total",
        "MorphologyCausalLogPayload",
        ("governor_approved", "watch_window_evidence"),
    ),
    "PerformanceDegradationPayload.env_id": POSITION,
    "PerformanceDegradationPayload.episode_idx": POSITION,
    "PerformanceDegradationPayload.training_progress": SAME + "esper_run_progress_ratio",
    "PhaseTiming.wall_ms": "a histogram: esper_simic_phase_duration_seconds",
    "PhaseTiming.python_cpu_ms": COUNTED + "esper_simic_phase_cpu_seconds_total",
    "PhaseTiming.python_cpu_ratio": "the ratio of the two others",
    **each(POSITION, "PhaseProfileReport", ("epoch", "batch_idx")),
    **{
        f"{kind}.{name}": reason
        for kind in (
            "SeedFossilizedPayload",
            "SeedGerminatedPayload",
            "SeedPrunedPayload",
            "SeedStageChangedPayload",
            "SeedGateEvaluatedPayload",
        )
        for name, reason in (
            ("env_id", LABEL),
            ("episode_idx", POSITION),
            ("rng_seed", IDENTITY),
        )
        if (kind, name) != ("SeedGateEvaluatedPayload", "rng_seed")
    },
    **{
        f"{kind}.{name}": STATE + "esper_kasmina_seed_*"
        for kind, names in (
            (
                "SeedFossilizedPayload",
                ("improvement", "params_added", "alpha", "epochs_total", "counterfactual"),
            ),
            (
                "SeedGerminatedPayload",
                (
                    "params",
                    "alpha",
                    "grad_ratio",
                    "has_vanishing",
                    "has_exploding",
                    "epochs_in_stage",
                    "blend_tempo_epochs",
                ),
            ),
            ("SeedPrunedPayload", ("improvement", "auto_pruned", "epochs_total", "counterfactual")),
            (
                "SeedStageChangedPayload",
                (
                    "alpha",
                    "accuracy_delta",
                    "epochs_in_stage",
                    "grad_ratio",
                    "has_vanishing",
                    "has_exploding",
                ),
            ),
        )
        for name in names
    },
    "SeedFossilizedPayload.blending_delta": "accuracy_delta over the blending stage alone, which"
    " esper_kasmina_seed_accuracy_delta_ratio showed while it lasted",
    "SeedPrunedPayload.blending_delta": "accuracy_delta over the blending stage alone, which"
    " esper_kasmina_seed_accuracy_delta_ratio showed while it lasted",
    "SeedGateEvaluatedPayload.passed": COUNTED + "esper_kasmina_gate_evaluations_total",
    **each(
        "the moment is counted in esper_tamiyo_initiations_total; " + POSITION,
        "TamiyoInitiatedPayload",
        ("env_id", "epoch", "stable_count", "stabilization_epochs", "val_loss", "episode_idx"),
    ),
    "TamiyoPolicyUpdatePayload.amp_overflow_detected": COUNTED + "esper_tamiyo_amp_overflows_total",
    "TamiyoPolicyUpdatePayload.amp_overflow_count": COUNTED + "esper_tamiyo_amp_overflows_total",
    "TamiyoPolicyUpdatePayload.loss_scale_updates": COUNTED
    + "esper_tamiyo_loss_scale_updates_total",
    "TamiyoPolicyUpdatePayload.rollback_steps_zeroed": COUNTED
    + "esper_tamiyo_rollback_steps_zeroed_total",
    "TamiyoPolicyUpdatePayload.update_skipped": "never filled by the real system",
    "TamiyoPolicyUpdatePayload.skipped": COUNTED + "esper_tamiyo_updates_skipped_total",
    "TamiyoPolicyUpdatePayload.inner_epoch": "always the maximum, so no progress",
    "TamiyoPolicyUpdatePayload.ppo_updates_count": SAME + "esper_tamiyo_update_index",
    "TamiyoPolicyUpdatePayload.op_q_values": BY_OP + "esper_tamiyo_q_value",
    **each(
        BY_OP + "esper_tamiyo_q_value",
        "TamiyoPolicyUpdatePayload",
        ("q_wait", "q_germinate", "q_set_alpha", "q_prune", "q_fossilize", "q_advance"),
    ),
    "TamiyoPolicyUpdatePayload.op_valid_mask": BY_OP + "esper_tamiyo_op_valid",
    "TamiyoPolicyUpdatePayload.causal_mask_coverage": SAME + "esper_tamiyo_head_active_ratio",
    **each(
        STATE + "esper_run_* and esper_simic_episode_return",
        "TolariaBatchPayload",
        ("episodes_completed", "batch_idx", "total_episodes"),
    ),
    **each(
        "configuration, reported by TRAINING_STARTED",
        "TolariaBatchPayload",
        ("n_envs", "start_episode", "requested_episodes"),
    ),
    "TolariaBatchPayload.env_accuracies": SAME + "esper_simic_episode_last_accuracy_ratio",
    "TolariaEpochPayload.env_id": LABEL,
    "TolariaEpochPayload.episode_idx": POSITION,
    **each(
        STATE + "esper_tolaria_host_accuracy_ratio, …_host_loss, …_env_epoch",
        "TolariaEpochPayload",
        ("val_accuracy", "val_loss", "inner_epoch"),
    ),
    **each(
        "a histogram: esper_tolaria_step_duration_seconds",
        "TolariaEpochPayload",
        (
            "forward_time_ms",
            "backward_time_ms",
            "optimizer_step_time_ms",
            "data_transfer_time_ms",
            "host_epoch_time_ms",
        ),
    ),
    **each(
        STATE + "esper_kasmina_seed_*",
        "SeedTelemetry",
        (
            "accuracy_delta",
            "epochs_in_stage",
            "alpha",
            "grad_ratio",
            "has_vanishing",
            "has_exploding",
            "contribution_velocity",
            "interaction_sum",
            "boost_received",
            "upstream_alpha_sum",
            "downstream_alpha_sum",
        ),
    ),
    "TolariaRollbackPayload.env_id": POSITION,
    "TolariaRollbackPayload.episode_idx": POSITION,
    **each(
        "describes a recorded topology, not the training; esper_kasmina_topology_manifests_total"
        " counts them and their matches",
        "TopologyManifestPayload",
        (
            "topology_manifest_version",
            "slot_count",
            "fossilized_seed_count",
            "topology_delta_count",
            "source_episode_idx",
            "replay_env_id",
            "replay_episode_idx",
            "manifest_match",
        ),
    ),
    **each(
        STATE + "esper_run_*, esper_tolaria_host_params, esper_torch_compile_enabled",
        "TrainingStartedPayload",
        (
            "max_epochs",
            "max_batches",
            "host_params",
            "lr",
            "clip_ratio",
            "entropy_coef",
            "param_budget",
            "compile_enabled",
        ),
    ),
    "TrainingStartedPayload.entropy_anneal": "a schedule; esper_tamiyo_entropy_coefficient is what"
    " it gives",
    "TrainingStartedPayload.seed": "a label of esper_run_info",
    "TrainingStartedPayload.local_rank": "a label of esper_run_info",
    "TrainingStartedPayload.rank": LABEL,
    **each(
        TEXT_ONLY,
        "TrainingStartedPayload",
        ("proof_baseline_schedule_version", "proof_baseline_schedule_action_count"),
    ),
}
