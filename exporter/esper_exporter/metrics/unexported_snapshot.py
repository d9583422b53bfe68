"""Fields of the snapshot that no metric shows, each with the reason."""

from __future__ import annotations

from esper_exporter.metrics.reasons import (
    BY_OP,
    COUNTED,
    DECISION,
    HISTORY,
    IDENTITY,
    LABEL,
    PEAK,
    POSITION,
    SAME,
    TUI,
    VITALS,
    WALL_CLOCK,
    each,
)
from esper_exporter.state.head_state import HeadState

SNAPSHOT_FIELDS: dict[str, str] = {
    "EnvState.env_id": LABEL,
    "EnvState.reward_history": HISTORY,
    "EnvState.accuracy_history": HISTORY,
    "EnvState.action_counts": COUNTED + "esper_tamiyo_actions_total; by operation for the"
    " running episode esper_tamiyo_episode_actions",
    "EnvState.rolled_back": "clears within one epoch and is missed by any scrape;"
    " esper_tolaria_rollbacks_total and esper_tolaria_env_last_rollback_timestamp_seconds stay",
    **each(
        PEAK,
        "EnvState",
        ("best_blueprint_spawns", "best_blueprint_fossilized", "best_blueprint_prunes"),
    ),
    **{
        f"{path}.{name}": PEAK
        for path in ("envs.best_seeds", "best_runs.seeds")
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
            ("envs.best_reward_components", PEAK),
            ("best_runs.reward_components", PEAK),
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
    "RewardComponents.env_id": LABEL,
    "CounterfactualConfig.seed_mask": "one row of a matrix of up to 2^slots;"
    " esper_simic_counterfactual_* sum it up",
    "CounterfactualConfig.accuracy": "one row of a matrix of up to 2^slots;"
    " esper_simic_counterfactual_* sum it up",
    **{
        f"{path}.compute_time_ms": PEAK
        for path in ("envs.best_counterfactual_matrix", "best_runs.counterfactual_matrix")
    },
    **{
        f"{path}.values.{name}": PEAK
        for path in ("envs.best_shapley_snapshot", "best_runs.shapley_snapshot")
        for name in ("mean", "std", "n_samples")
    },
    "ShapleySnapshot.epoch": POSITION,
    **each(
        COUNTED + "esper_kasmina_transitions_total, …_germinations_total, …_prunes_total",
        "SeedLifecycleEvent",
        ("epoch", "alpha", "accuracy_delta"),
    ),
    "SeedLifecycleEvent.rng_seed": IDENTITY,
    **each(HISTORY, "TamiyoState", ("entropy_history", "clip_fraction_history")),
    **each(
        "exported under the schema's name for it, tamiyo.head_{head}_{field}",
        "HeadState",
        HeadState.__slots__,
    ),
    "TamiyoState.current_episode": "never filled by the real system; esper_run_episode",
    "TamiyoState.inner_epoch": "always the maximum, so no progress; esper_tamiyo_update_index is",
    "TamiyoState.action_counts": "refreshed only while a page is open;"
    " esper_tamiyo_episode_actions is from the environments",
    "TamiyoState.total_actions": "refreshed only while a page is open;"
    " esper_tamiyo_running_episode_actions is from the environments",
    "TamiyoState.cumulative_action_counts": COUNTED + "esper_tamiyo_actions_total",
    "TamiyoState.cumulative_total_actions": COUNTED + "esper_tamiyo_actions_total",
    "TamiyoState.ppo_data_received": "esper_tamiyo_updates_total is above 0",
    "TamiyoState._previous_risk": "the hysteresis of collapse_risk_score, which is exported",
    "TamiyoState.op_q_values": BY_OP + "esper_tamiyo_q_value",
    "TamiyoState.op_valid_mask": BY_OP + "esper_tamiyo_op_valid",
    "TamiyoState.last_action_success": SAME + "esper_tamiyo_env_last_action_success of the"
    " environment that acted last; esper_tamiyo_actions_total counts them all",
    "TamiyoState.rollback_attempt_count": "esper_tamiyo_rollback_attempts is taken from the event",
    "TamiyoState.rollback_unattributed_count": "esper_tamiyo_rollbacks_unattributed is taken from"
    " the event",
    **each(
        DECISION + "esper_tamiyo_decision_value, …_reward, …_value_residual, …_td_advantage,"
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
    **each(POSITION, "DecisionSnapshot", ("episode", "epoch", "batch")),
    "DecisionSnapshot.env_id": LABEL,
    "DecisionSnapshot.confidences": DECISION
    + "head show it: esper_tamiyo_decision_confidence_ratio",
    "GPUStats.device_id": LABEL,
    **{
        f"{path}{field}": VITALS + f"the driver is asked directly: esper_gpu_{metric}"
        for path in ("GPUStats.", "SystemVitals.gpu_")
        for field, metric in (
            ("memory_used_gb", "memory_used_bytes"),
            ("memory_total_gb", "memory_total_bytes"),
            ("utilization", "utilization_ratio"),
            ("temperature", "temperature_celsius"),
        )
        if (path, field) != ("SystemVitals.gpu_", "temperature")
    },
    **{
        f"SystemVitals.{field}": VITALS + f"the host is asked directly: esper_host_{metric}"
        for field, metric in (
            ("ram_used_gb", "memory_used_bytes"),
            ("ram_total_gb", "memory_total_bytes"),
        )
    },
    "SystemVitals.epochs_per_second": WALL_CLOCK
    + "esper_tolaria_epochs_per_second goes by the events' times",
    "SystemVitals.batches_per_hour": WALL_CLOCK
    + "esper_tolaria_batches_per_second goes by the events' times",
    "SystemVitals.throughput_present": "the throughput metrics are absent when it is false",
    "RunConfig.seed": "a label of esper_run_info",
    "RunConfig.n_episodes": "esper_run_configured_episodes is taken from the event",
    "RunConfig.entropy_anneal": "a schedule; esper_tamiyo_entropy_coefficient is what it gives",
    "SanctumSnapshot.runtime_seconds": WALL_CLOCK + "time() - esper_run_start_timestamp_seconds",
    "SanctumSnapshot.staleness_seconds": WALL_CLOCK
    + "time() - esper_run_last_event_timestamp_seconds",
    "SanctumSnapshot.total_events_received": COUNTED + "esper_run_events_total",
    "SanctumSnapshot.focused_env_id": TUI,
    **each(TUI, "EventLogEntry", ("env_id", "episode")),
    **each(HISTORY, "BestRunRecord", ("reward_history", "accuracy_history")),
    "BestRunRecord.host_params": SAME + "esper_tolaria_env_host_params",
    **each(
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
        f"SanctumSnapshot.cumulative_{ours}": COUNTED + f"esper_kasmina_{counter}_total"
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
        f"SeedLifecycleStats.{ours}": COUNTED + f"esper_kasmina_{counter}_total"
        for ours, counter in (
            ("prune_count", "prunes"),
            ("fossilize_count", "fossilizations"),
        )
    },
    "SeedLifecycleStats.total_slots": SAME + "esper_kasmina_configured_slots",
    "EpisodeStats.total_episodes": SAME + "esper_run_episode",
    "EpisodeStats.episodes_per_second": WALL_CLOCK
    + "esper_simic_episodes_per_second goes by the events' times",
}
