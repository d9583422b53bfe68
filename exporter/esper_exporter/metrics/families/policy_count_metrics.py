"""Tamiyo: operations, the recommended diagnostics, and what is counted over updates."""

from __future__ import annotations

from esper_exporter.metrics.families.policy_metrics import update_field
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram
from esper_exporter.state import counted

OPS_METRICS: tuple[Metric, ...] = (
    gauge(
        "op",
        "esper_tamiyo_q_value",
        "derived: the entry of tamiyo.op_q_values at the operation's place in the fixed order",
        "Q-value of an operation in the last update; absent where the operation was not legal.",
    ),
    gauge(
        "op",
        "esper_tamiyo_op_valid",
        "derived: the entry of tamiyo.op_valid_mask at the operation's place in the fixed order",
        "1 if the operation was legal where the Q-values were taken.",
    ),
    gauge(
        "op",
        "esper_tamiyo_op_probability_ratio",
        "event:PPO_UPDATE_COMPLETED.op_distribution[{op}]",
        "Share of an operation in the policy's distribution, from trainers that report it.",
    ),
    gauge(
        "op",
        "esper_tamiyo_episode_actions",
        "derived: sum of envs[].action_counts of the operation",
        "Actions of the running episode by operation, all environments.",
    ),
)

RECOMMENDED: tuple[Metric, ...] = (
    update_field("esper_tamiyo_kl_divergence_max_nats", "approx_kl_max", "Largest KL of one step."),
    update_field(
        "esper_tamiyo_kl_reverse_nats", "kl_reverse", "KL of the new policy from the old."
    ),
    update_field(
        "esper_tamiyo_update_trust_region_violations",
        "trust_region_violations",
        "Steps of the last update whose ratio left the clip range.",
    ),
    update_field(
        "esper_tamiyo_value_prediction_error_mean",
        "value_prediction_error_mean",
        "Mean of value estimate minus return.",
    ),
    update_field(
        "esper_tamiyo_value_prediction_error_std",
        "value_prediction_error_std",
        "Standard deviation of value estimate minus return.",
    ),
    update_field(
        "esper_tamiyo_value_target_correlation",
        "value_target_correlation",
        "Correlation of value estimates and their targets.",
    ),
    update_field(
        "esper_tamiyo_policy_determinism_ratio",
        "policy_determinism",
        "1 minus entropy over its maximum; above 0.95 the policy hardly chooses.",
    ),
    update_field(
        "esper_tamiyo_action_diversity",
        "action_diversity",
        "Different action combinations in the last update's batch.",
    ),
    update_field(
        "esper_tamiyo_dominant_action_ratio",
        "dominant_action_ratio",
        "Share of the commonest action; above 0.8 the policy collapsed onto it.",
    ),
    update_field(
        "esper_tamiyo_update_log_prob_underflows",
        "log_prob_underflow_count",
        "Steps of the last update with a log-probability below -50.",
    ),
    update_field(
        "esper_tamiyo_numerical_stability_ratio",
        "numerical_stability_score",
        "Numerical health of the last update, 0 to 1 (1 is healthy).",
    ),
    update_field(
        "esper_tamiyo_grad_clipped_ratio",
        "grad_clip_fraction",
        "Share of the last update's optimizer steps whose gradients were clipped.",
    ),
    update_field(
        "esper_tamiyo_valid_sample_ratio",
        "valid_sample_ratio",
        "Samples left after masking, as a share.",
    ),
    update_field(
        "esper_tamiyo_weight_change_norm",
        "policy_update_magnitude",
        "L2 norm of the weights' change in the last update.",
    ),
    update_field(
        "esper_tamiyo_gradient_utilization_ratio",
        "gradient_utilization",
        "Gradient norm as a share of the clipping norm.",
    ),
    update_field(
        "esper_tamiyo_grad_zero_ratio",
        "grad_zero_fraction",
        "Share of gradient entries that are exactly 0.",
    ),
    update_field(
        "esper_tamiyo_layer_grad_norm_spread",
        "grad_norm_ratio",
        "Largest layer's gradient norm over the smallest's.",
    ),
)

COUNTERS: tuple[Metric, ...] = (
    counter(
        counted.UPDATES,
        "derived: number of policy updates that were carried out",
        "Policy updates carried out.",
    ),
    counter(
        counted.UPDATES_SKIPPED,
        "derived: number of policy updates that were skipped, each counted once",
        "Policy updates skipped: nonfinite (the finiteness gate), rollback (no data left),"
        " requested (the loop skipped it), unexplained.",
    ),
    counter(
        counted.FINITENESS_FAILURES,
        "derived: number of ppo_finiteness_failure anomalies",
        "Times the finiteness gate gave up and ended the run.",
    ),
    counter(
        counted.GRADIENT_EXPLOSIONS,
        "derived: number of policy updates whose gradient norm before clipping was above"
        " esper_tamiyo_explosion_grad_norm",
        "Policy updates with an exploding gradient: the norm before clipping was above"
        " esper_tamiyo_explosion_grad_norm.",
    ),
    counter(
        counted.NONFINITE_GRAD_NORMS,
        "derived: number of policy updates whose gradient norm was NaN or Inf",
        "Policy updates whose gradient norm was NaN or Inf.",
    ),
    counter(
        counted.LOW_RETURN_VARIANCE,
        "derived: number of policy updates with ev_low_return_variance",
        "Policy updates whose returns hardly varied; above 20 % the value function cannot learn.",
    ),
    counter(
        counted.EARLY_STOPS,
        "derived: number of policy updates with early_stop_epoch",
        "Policy updates that KL stopped early.",
    ),
    counter(
        counted.ADVANTAGE_STD_FLOORED,
        "derived: number of policy updates with advantage_std_floored",
        "Policy updates with degenerate advantages.",
    ),
    counter(
        counted.ENTROPY_COLLAPSED,
        "derived: number of policy updates with entropy_collapsed",
        "Policy updates for which the trainer reported collapsed entropy.",
    ),
    counter(
        counted.AMP_OVERFLOWS,
        "derived: sum of amp_overflow_count, or updates with amp_overflow_detected",
        "AMP overflows.",
    ),
    counter(
        counted.LOSS_SCALE_UPDATES,
        "derived: sum of loss_scale_updates",
        "Changes of the AMP loss scale.",
    ),
    counter(
        counted.ROLLBACK_STEPS_ZEROED,
        "derived: sum of rollback_steps_zeroed",
        "Steps taken out of training by rollbacks.",
    ),
    counter(
        counted.TRUST_REGION_VIOLATIONS,
        "derived: sum of trust_region_violations",
        "Steps whose ratio left the clip range.",
    ),
    counter(
        counted.LOG_PROB_UNDERFLOWS,
        "derived: sum of log_prob_underflow_count",
        "Steps with a log-probability below -50.",
    ),
    counter(
        counted.INITIATIONS,
        "derived: number of TAMIYO_INITIATED events",
        "Times an environment's host became stable and Tamiyo took over.",
    ),
    counter(
        counted.ACTIONS,
        "derived: number of last_action snapshots by normalised action and success",
        "Actions by operation and success.",
    ),
    counter(counted.DECISIONS, "derived: number of last_action snapshots", "Decisions taken."),
    counter(
        counted.MASKED_DECISIONS,
        "derived: number of last_action snapshots with {head}_masked",
        "Decisions in which a head had no say, its choice being masked.",
    ),
    counter(
        counted.NONFINITE_OBSERVATIONS,
        "derived: sum of nan_count and inf_count of the observation statistics",
        "NaN and Inf values seen in the policy's observations.",
    ),
    histogram(
        counted.UPDATE_GRAD_NORM,
        "derived: gradient norm before clipping of every policy update",
        "Gradient norm before clipping of every policy update; non-finite ones are counted apart.",
    ),
    histogram(
        counted.UPDATE_DURATION,
        "derived: update_time_ms of every policy update",
        "Duration of policy updates.",
    ),
)
