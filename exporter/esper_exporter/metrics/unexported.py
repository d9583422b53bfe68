"""Fields of the snapshot and of the events that no metric shows, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable

from esper_exporter.contract.vocabulary import HEADS

_HEADS = tuple("curve" if head == "alpha_curve" else head for head in HEADS)

_HISTORY = "a history: Prometheus keeps it of the value that is exported"
_PEAK = "a copy of live fields at the moment of the best accuracy; the live fields are exported"
_COUNTED = "carried by a counter: "
_LABEL = "it is a label, not a value"
_POSITION = "says when it happened; the sample's own time does"
_SAME = "the same as "
_WALL_CLOCK = "goes by the clock of the aggregating process; "
_VITALS = "read by the real aggregator while somebody looks, and mostly never filled; "
_BY_OP = "exported by operation, as "
_TUI = "concerns the terminal UI, not the run"
_IDENTITY = "identifies one happening; never a label, it would be unbounded"
_DECISION = (
    "single decisions are not series; histograms over all decisions and the last decision's "
)
_STATE = "reaches the snapshot, where it is exported: "
_TEXT_ONLY = "kept in esper_run_info or not a measurement"


def _all(reason: str, kind: str, names: Iterable[str]) -> dict[str, str]:
    return {f"{kind}.{name}": reason for name in names}


UNEXPORTED: dict[str, str] = {
    # -- the snapshot ------------------------------------------------------------------------
    "EnvState.env_id": _LABEL,
    "EnvState.reward_history": _HISTORY,
    "EnvState.accuracy_history": _HISTORY,
    "EnvState.action_counts": _COUNTED + "esper_tamiyo_actions_total; by operation for the"
    " running episode esper_tamiyo_episode_actions",
    "EnvState.rolled_back": "clears within one epoch and is missed by any scrape;"
    " esper_tolaria_rollbacks_total and esper_tolaria_env_last_rollback_timestamp_seconds stay",
    **_all(
        _PEAK,
        "EnvState",
        ("best_blueprint_spawns", "best_blueprint_fossilized", "best_blueprint_prunes"),
    ),
    **{
        f"{path}.{name}": _PEAK
        for path in ("envs.best_seeds", "best_runs.seeds", "best_runs.end_seeds")
        for name in (
            "alpha",
            "accuracy_delta",
            "seed_params",
            "grad_ratio",
            "has_vanishing",
            "has_exploding",
            "epochs_in_stage",
            "improvement",
            "auto_pruned",
            "epochs_total",
            "counterfactual",
            "blend_tempo_epochs",
            "contribution_velocity",
            "interaction_sum",
            "boost_received",
            "upstream_alpha_sum",
            "downstream_alpha_sum",
        )
    },
    **{
        f"{path}.{name}": reason
        for path, reason in (
            ("envs.best_reward_components", _PEAK),
            ("best_runs.reward_components", _PEAK),
            ("best_runs.end_reward_components", _PEAK),
            ("rewards", "a copy of one environment's envs[{env_id}].reward_components"),
        )
        for name in (
            "total",
            "base_acc_delta",
            "bounded_attribution",
            "seed_contribution",
            "escrow_credit_prev",
            "escrow_credit_target",
            "escrow_delta",
            "escrow_credit_next",
            "escrow_forfeit",
            "compute_rent",
            "alpha_shock",
            "ratio_penalty",
            "stage_bonus",
            "fossilize_terminal_bonus",
            "blending_warning",
            "holding_warning",
            "hindsight_credit",
            "scaffold_count",
            "avg_scaffold_delay",
            "val_acc",
            "stable_val_acc",
        )
    },
    "RewardComponents.env_id": _LABEL,
    "CounterfactualConfig.seed_mask": "one row of a matrix of up to 2^slots;"
    " esper_simic_counterfactual_* sum it up",
    "CounterfactualConfig.accuracy": "one row of a matrix of up to 2^slots;"
    " esper_simic_counterfactual_* sum it up",
    **{
        f"{path}.compute_time_ms": _PEAK
        for path in ("envs.best_counterfactual_matrix", "best_runs.counterfactual_matrix")
    },
    **{
        f"{path}.values.{name}": _PEAK
        for path in ("envs.best_shapley_snapshot", "best_runs.shapley_snapshot")
        for name in ("mean", "std", "n_samples")
    },
    "ShapleySnapshot.epoch": _POSITION,
    **_all(
        _COUNTED + "esper_kasmina_transitions_total, …_germinations_total, …_prunes_total",
        "SeedLifecycleEvent",
        ("epoch", "alpha", "accuracy_delta"),
    ),
    "SeedLifecycleEvent.rng_seed": _IDENTITY,
    **_all(
        _HISTORY,
        "TamiyoState",
        (
            "decision_density_history",
            "episode_return_history",
            "policy_loss_history",
            "value_loss_history",
            "grad_norm_history",
            "entropy_history",
            "explained_variance_history",
            "kl_divergence_history",
            "clip_fraction_history",
        ),
    ),
    **_all(_HISTORY, "ValueFunctionMetrics", ("value_predictions", "actual_returns", "td_errors")),
    "TamiyoState.current_episode": "never filled by the real system; esper_run_episode",
    "TamiyoState.inner_epoch": "always the maximum, so no progress; esper_tamiyo_update_index is",
    "TamiyoState.action_counts": "brought up to date only while somebody looks;"
    " esper_tamiyo_episode_actions is from the environments",
    "TamiyoState.total_actions": "brought up to date only while somebody looks;"
    " esper_tamiyo_running_episode_actions is from the environments",
    "TamiyoState.cumulative_action_counts": _COUNTED + "esper_tamiyo_actions_total",
    "TamiyoState.cumulative_total_actions": _COUNTED + "esper_tamiyo_actions_total",
    "TamiyoState.ppo_data_received": "esper_tamiyo_updates_total is above 0",
    "TamiyoState._previous_risk": "the hysteresis of collapse_risk_score, which is exported",
    "TamiyoState.op_q_values": _BY_OP + "esper_tamiyo_q_value",
    "TamiyoState.op_valid_mask": _BY_OP + "esper_tamiyo_op_valid",
    "TamiyoState.last_action_success": _SAME + "esper_tamiyo_env_last_action_success of the"
    " environment that acted last; esper_tamiyo_actions_total counts them all",
    "TamiyoState.rollback_attempt_count": "esper_tamiyo_rollback_attempts is taken from the event",
    "TamiyoState.rollback_unattributed_count": "esper_tamiyo_rollbacks_unattributed is taken from"
    " the event",
    **_all(
        _DECISION + "esper_tamiyo_decision_value, …_reward, …_value_residual, …_td_advantage,"
        " …_entropy_nats and …_confidence show them",
        "DecisionSnapshot",
        (
            "host_accuracy",
            "confidence",
            "expected_value",
            "actual_reward",
            "action_success",
            "value_residual",
            "td_advantage",
            "decision_entropy",
        ),
    ),
    **_all(_POSITION, "DecisionSnapshot", ("episode", "epoch", "batch")),
    "DecisionSnapshot.env_id": _LABEL,
    **_all(
        _DECISION + "head show it: esper_tamiyo_decision_confidence_ratio",
        "DecisionSnapshot",
        tuple(f"{head}_confidence" for head in _HEADS),
    ),
    **_all(
        _DECISION + "head show it: esper_tamiyo_decision_entropy_ratio",
        "DecisionSnapshot",
        tuple(f"{head}_entropy" for head in _HEADS),
    ),
    **_all(
        _VITALS + "GPUs are asked for their vitals directly",
        "GPUStats",
        ("device_id", "memory_used_gb", "memory_total_gb", "utilization", "temperature"),
    ),
    **_all(
        _VITALS + "GPUs are asked for their vitals directly",
        "SystemVitals",
        (
            "gpu_memory_used_gb",
            "gpu_memory_total_gb",
            "gpu_utilization",
            "gpu_temperature",
            "gpu_data_present",
        ),
    ),
    **_all(
        _VITALS + "the host's own exporter tells them",
        "SystemVitals",
        ("cpu_percent", "ram_used_gb", "ram_total_gb"),
    ),
    "SystemVitals.epochs_per_second": _WALL_CLOCK
    + "esper_tolaria_epochs_per_second goes by the events' times",
    "SystemVitals.batches_per_hour": _WALL_CLOCK
    + "esper_tolaria_batches_per_second goes by the events' times",
    "SystemVitals.throughput_present": "the throughput metrics are absent when it is false",
    "RunConfig.seed": "a label of esper_run_info",
    "RunConfig.n_episodes": "esper_run_configured_episodes is taken from the event",
    "RunConfig.entropy_anneal": "a schedule; esper_tamiyo_entropy_coefficient is what it gives",
    "SanctumSnapshot.connected": "up is Prometheus' own word for it",
    "SanctumSnapshot.runtime_seconds": _WALL_CLOCK + "time() - esper_run_start_timestamp_seconds",
    "SanctumSnapshot.staleness_seconds": _WALL_CLOCK
    + "time() - esper_run_last_event_timestamp_seconds",
    "SanctumSnapshot.total_events_received": _COUNTED + "esper_run_events_total",
    "SanctumSnapshot.poll_count": _TUI,
    "SanctumSnapshot.training_thread_alive": "never filled by the real system; a silent run shows"
    " in esper_run_last_event_timestamp_seconds",
    "SanctumSnapshot.mean_accuracy_history": _HISTORY,
    "SanctumSnapshot.focused_env_id": _TUI,
    "SanctumSnapshot.last_action_env_id": _TUI,
    **_all(_TUI, "EventLogEntry", ("env_id", "episode", "metadata")),
    **_all(_HISTORY, "BestRunRecord", ("reward_history", "accuracy_history")),
    "BestRunRecord.host_params": _SAME + "esper_tolaria_env_host_params",
    **_all(
        "a detail of one episode; the counters by blueprint tell it over all",
        "BestRunRecord",
        (
            "fossilized_count",
            "pruned_count",
            "blueprint_spawns",
            "blueprint_fossilized",
            "blueprint_prunes",
        ),
    ),
    **{
        f"SanctumSnapshot.cumulative_{ours}": _COUNTED + f"esper_kasmina_{counter}_total"
        for ours, counter in (
            ("germinated", "germinations"),
            ("fossilized", "fossilizations"),
            ("pruned", "prunes"),
            ("blueprint_spawns", "germinations"),
            ("blueprint_fossilized", "fossilizations"),
            ("blueprint_prunes", "prunes"),
        )
    },
    **{
        f"SeedLifecycleStats.{ours}": _COUNTED + f"esper_kasmina_{counter}_total"
        for ours, counter in (
            ("germination_count", "germinations"),
            ("prune_count", "prunes"),
            ("fossilize_count", "fossilizations"),
        )
    },
    "SeedLifecycleStats.active_count": _SAME + "esper_kasmina_active_slots",
    "SeedLifecycleStats.total_slots": _SAME + "esper_kasmina_configured_slots",
    "EpisodeStats.total_episodes": _SAME + "esper_run_episode",
    "EpisodeStats.episodes_per_second": _WALL_CLOCK
    + "esper_simic_episodes_per_second goes by the events' times",
    "EpisodeStats.timeout_count": _COUNTED + "esper_simic_episodes_total",
    "EpisodeStats.success_count": _COUNTED + "esper_simic_episodes_total",
    "EpisodeStats.early_termination_count": "never filled by the real system",
    "EpisodeStats.early_termination_rate": "never filled by the real system",
    **_all(
        _COUNTED + "esper_kasmina_morphology_events_total",
        "MorphologyCausalLogEntry",
        ("governor_approved", "watch_window_evidence"),
    ),
    "MorphologyCausalLogEntry.env_id": _POSITION,
    "MorphologyCausalLogEntry.rng_seed": _IDENTITY,
    # -- the events --------------------------------------------------------------------------
    "AllocatorStatsPayload.batch_idx": _POSITION,
    **_all(
        _LABEL,
        "AnalyticsSnapshotPayload",
        ("env_id",),
    ),
    **_all(
        _POSITION,
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
    "AnalyticsSnapshotPayload.action_success": _COUNTED + "esper_tamiyo_actions_total",
    **_all(
        "the choice itself, not a measurement; esper_tamiyo_actions_total counts operations",
        "AnalyticsSnapshotPayload",
        ("tempo_idx", "alpha_target"),
    ),
    **_all(
        _COUNTED + "esper_tamiyo_masked_decisions_total",
        "AnalyticsSnapshotPayload",
        tuple(f"{head}_masked" for head in HEADS),
    ),
    **_all(
        _STATE + "esper_simic_reward_*",
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
    **_all(
        "free of a schema; what matters of it comes under names of its own",
        "AnalyticsSnapshotPayload",
        ("summary", "mask_hits", "mask_total"),
    ),
    **_all(
        _SAME + "what the policy update and the batch's end tell",
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
    "AnalyticsSnapshotPayload.skipped_update": _COUNTED + "esper_tamiyo_updates_skipped_total",
    **_all(
        _TEXT_ONLY + "; told by TRAINING_STARTED",
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
    **_all(
        "a histogram over all decisions: esper_tamiyo_decision_confidence_ratio",
        "HeadTelemetry",
        tuple(f"{head}_confidence" for head in _HEADS),
    ),
    **_all(
        "a histogram over all decisions: esper_tamiyo_decision_entropy_ratio",
        "HeadTelemetry",
        tuple(f"{head}_entropy" for head in _HEADS),
    ),
    **_all(
        _STATE + "envs[{env_id}].reward_components",
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
    "RewardComponentsTelemetry.action_success": _COUNTED + "esper_tamiyo_actions_total",
    "RewardComponentsTelemetry.seed_stage": "a number for a stage; esper_kasmina_slot_stage",
    "RewardComponentsTelemetry.epoch": _POSITION,
    **_all(
        _STATE + "esper_tamiyo_observation_*",
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
    "CounterfactualMatrixPayload.env_id": _LABEL,
    "CounterfactualMatrixPayload.episode_idx": _POSITION,
    "CounterfactualMatrixPayload.compute_time_ms": _STATE
    + "esper_simic_counterfactual_compute_seconds",
    **_all(
        "a row of a matrix of up to 2^slots; the snapshot sums it up",
        "CounterfactualConfigTelemetry",
        ("seed_mask", "accuracy"),
    ),
    **_all(_POSITION, "TrendDetectedPayload", ("batch_idx", "episodes_completed")),
    **_all(
        _SAME + "esper_tolaria_rolling_accuracy_ratio at the time",
        "TrendDetectedPayload",
        ("rolling_avg_accuracy", "prev_rolling_avg_accuracy"),
    ),
    **_all(_POSITION, "EpisodeOutcomePayload", ("episode_idx",)),
    "EpisodeOutcomePayload.env_id": _LABEL,
    **_all(
        _STATE + "esper_simic_steps_per_germination, …_prune, …_fossilization",
        "EpisodeOutcomePayload",
        ("germinate_count", "prune_count", "fossilize_count"),
    ),
    **_all(
        _POSITION,
        "AnomalyDetectedPayload",
        ("episode", "batch", "inner_epoch", "total_episodes"),
    ),
    "MorphologyCausalLogPayload.env_id": _POSITION,
    "MorphologyCausalLogPayload.rng_seed": _IDENTITY,
    **_all(
        _COUNTED + "esper_kasmina_morphology_events_total",
        "MorphologyCausalLogPayload",
        ("governor_approved", "watch_window_evidence"),
    ),
    "PerformanceDegradationPayload.env_id": _POSITION,
    "PerformanceDegradationPayload.episode_idx": _POSITION,
    "PerformanceDegradationPayload.training_progress": _SAME + "esper_run_progress_ratio",
    "PhaseTiming.wall_ms": "a histogram: esper_simic_phase_duration_seconds",
    "PhaseTiming.python_cpu_ms": _COUNTED + "esper_simic_phase_cpu_seconds_total",
    "PhaseTiming.python_cpu_ratio": "the ratio of the two others",
    **_all(_POSITION, "PhaseProfileReport", ("epoch", "batch_idx")),
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
            ("env_id", _LABEL),
            ("episode_idx", _POSITION),
            ("rng_seed", _IDENTITY),
        )
        if (kind, name) != ("SeedGateEvaluatedPayload", "rng_seed")
    },
    **{
        f"{kind}.{name}": _STATE + "esper_kasmina_seed_*"
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
    "SeedGateEvaluatedPayload.passed": _COUNTED + "esper_kasmina_gate_evaluations_total",
    **_all(
        "the moment is counted in esper_tamiyo_initiations_total; " + _POSITION,
        "TamiyoInitiatedPayload",
        ("env_id", "epoch", "stable_count", "stabilization_epochs", "val_loss", "episode_idx"),
    ),
    "TamiyoPolicyUpdatePayload.amp_overflow_detected": _COUNTED
    + "esper_tamiyo_amp_overflows_total",
    "TamiyoPolicyUpdatePayload.amp_overflow_count": _COUNTED + "esper_tamiyo_amp_overflows_total",
    "TamiyoPolicyUpdatePayload.loss_scale_updates": _COUNTED
    + "esper_tamiyo_loss_scale_updates_total",
    "TamiyoPolicyUpdatePayload.rollback_steps_zeroed": _COUNTED
    + "esper_tamiyo_rollback_steps_zeroed_total",
    "TamiyoPolicyUpdatePayload.update_skipped": "never filled by the real system",
    "TamiyoPolicyUpdatePayload.skipped": _COUNTED + "esper_tamiyo_updates_skipped_total",
    "TamiyoPolicyUpdatePayload.inner_epoch": "always the maximum, so no progress",
    "TamiyoPolicyUpdatePayload.ppo_updates_count": _SAME + "esper_tamiyo_update_index",
    "TamiyoPolicyUpdatePayload.op_q_values": _BY_OP + "esper_tamiyo_q_value",
    "TamiyoPolicyUpdatePayload.op_valid_mask": _BY_OP + "esper_tamiyo_op_valid",
    "TamiyoPolicyUpdatePayload.causal_mask_coverage": _SAME + "esper_tamiyo_head_active_ratio",
    **_all(
        _STATE + "esper_run_* and esper_simic_episode_return",
        "TolariaBatchPayload",
        ("episodes_completed", "batch_idx", "total_episodes"),
    ),
    **_all(
        "configuration, told by TRAINING_STARTED",
        "TolariaBatchPayload",
        ("n_envs", "start_episode", "requested_episodes"),
    ),
    "TolariaBatchPayload.env_accuracies": _SAME + "esper_simic_episode_last_accuracy_ratio",
    "TolariaEpochPayload.env_id": _LABEL,
    "TolariaEpochPayload.episode_idx": _POSITION,
    **_all(
        _STATE + "esper_tolaria_host_accuracy_ratio, …_host_loss, …_env_epoch",
        "TolariaEpochPayload",
        ("val_accuracy", "val_loss", "inner_epoch"),
    ),
    **_all(
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
    **_all(
        _STATE + "esper_kasmina_seed_*",
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
    "TolariaRollbackPayload.env_id": _POSITION,
    "TolariaRollbackPayload.episode_idx": _POSITION,
    **_all(
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
    **_all(
        _STATE + "esper_run_*, esper_tolaria_host_params, esper_torch_compile_enabled",
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
    "TrainingStartedPayload.rank": _LABEL,
    **_all(
        _TEXT_ONLY,
        "TrainingStartedPayload",
        ("proof_baseline_schedule_version", "proof_baseline_schedule_action_count"),
    ),
}
