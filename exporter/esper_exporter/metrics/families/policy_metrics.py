"""Tamiyo: values of a policy update that concern the policy as a whole."""

from __future__ import annotations

import math
from typing import Any

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge
from esper_exporter.state.trends import MINIMUM_VALUES, WINDOW

UPDATE = "event:PPO_UPDATE_COMPLETED."


def _layers_measured(roots: Any, name: str) -> Any:
    """Layer counts are filled only at debug level; at other times they are 0 unmeasured."""
    update, tamiyo = roots["update"], roots["snapshot"].tamiyo
    value = getattr(tamiyo, name)
    measured = (tamiyo if update is None else update).layer_gradient_health is not None
    return value if value or measured else None


def tamiyo_field(name: str, path: str, help: str, **options: Any) -> Metric:
    """A field of TamiyoState that the policy update carries under the same name."""
    field = path.rsplit(".", 1)[-1]
    payload = {"learning_rate": "lr", "pre_norm_advantage_std": "d5_pre_norm_advantage_std"}
    event = UPDATE + payload.get(field, field)
    return gauge("policy", name, (f"tamiyo.{path}", event), help, **options)


def _computed(name: str, field: str, histories: tuple[str, ...], help: str) -> Metric:
    """A field of TamiyoState that is computed there from the last values of others."""
    read = _of_histories(field, *histories)
    return gauge("policy", name, f"tamiyo.{field}", help, read=read)


def update_field(name: str, field: str, help: str, **options: Any) -> Metric:
    """A field of the last policy update that TamiyoState has no room for."""
    return gauge("policy", name, UPDATE + field, help, **options)


def _of_histories(field: str, *histories: str) -> Any:
    """A value computed from histories: there is none before five values, or from a NaN or Inf."""

    def read(roots: Any) -> Any:
        tamiyo = roots["snapshot"].tamiyo
        recent = [list(getattr(tamiyo, name))[-WINDOW:] for name in histories]
        enough = all(len(values) >= MINIMUM_VALUES for values in recent)
        finite = all(math.isfinite(value) for values in recent for value in values)
        if not (enough and finite) and not (roots["run"].given and not any(recent)):
            return None
        return getattr(tamiyo, field)

    return read


def _update_batch(roots: Any) -> Any:
    update = roots["update"]
    return roots["snapshot"].tamiyo.ppo_batch if update is None else update.batch


def _layer_count(name: str, field: str, help: str) -> Metric:
    return gauge(
        "policy",
        name,
        (f"tamiyo.{field}", UPDATE + field),
        help + " Absent while the trainer does not measure it.",
        read=lambda roots: _layers_measured(roots, field),
    )


METRICS: tuple[Metric, ...] = (
    tamiyo_field("esper_tamiyo_policy_loss", "policy_loss", "Policy loss of the last update."),
    tamiyo_field("esper_tamiyo_value_loss", "value_loss", "Value loss of the last update."),
    tamiyo_field(
        "esper_tamiyo_entropy_loss",
        "entropy_loss",
        "Entropy loss of the last update; absent when the trainer leaves it at 0.",
        zero_is_absent=True,
    ),
    tamiyo_field(
        "esper_tamiyo_policy_entropy",
        "entropy",
        "Sum of the eight head entropies (each as a share of its maximum) weighted by their"
        " entropy coefficients; at most 9.4.",
    ),
    _computed(
        "esper_tamiyo_entropy_velocity",
        "entropy_velocity",
        ("entropy_history",),
        "Slope of the policy entropy over the last ten updates, per update.",
    ),
    _computed(
        "esper_tamiyo_collapse_risk_ratio",
        "collapse_risk_score",
        ("entropy_history",),
        "Risk of entropy collapse, 0 to 1; above 0.7 is high.",
    ),
    _computed(
        "esper_tamiyo_entropy_clip_correlation",
        "entropy_clip_correlation",
        ("entropy_history", "clip_fraction_history"),
        "Correlation of entropy and clip fraction over the last ten updates, -1 to 1.",
    ),
    tamiyo_field("esper_tamiyo_entropy_coefficient", "entropy_coef", "Entropy coefficient in use."),
    tamiyo_field("esper_tamiyo_learning_rate", "learning_rate", "Learning rate of the policy."),
    tamiyo_field(
        "esper_tamiyo_kl_divergence_nats",
        "kl_divergence",
        "Mean KL divergence from the policy before the update.",
    ),
    tamiyo_field(
        "esper_tamiyo_clipped_ratio", "clip_fraction", "Share of samples PPO clipped, 0 to 1."
    ),
    tamiyo_field(
        "esper_tamiyo_clipped_positive_ratio",
        "gradient_quality.clip_fraction_positive",
        "Share of samples clipped because their probability rose too far.",
    ),
    tamiyo_field(
        "esper_tamiyo_clipped_negative_ratio",
        "gradient_quality.clip_fraction_negative",
        "Share of samples clipped because their probability fell too far.",
    ),
    tamiyo_field("esper_tamiyo_importance_ratio_mean", "ratio_mean", "Mean PPO probability ratio."),
    tamiyo_field(
        "esper_tamiyo_importance_ratio_min", "ratio_min", "Smallest PPO probability ratio."
    ),
    tamiyo_field(
        "esper_tamiyo_importance_ratio_max", "ratio_max", "Largest PPO probability ratio."
    ),
    tamiyo_field(
        "esper_tamiyo_importance_ratio_std",
        "ratio_std",
        "Standard deviation of the PPO probability ratio.",
    ),
    tamiyo_field(
        "esper_tamiyo_joint_ratio_max",
        "joint_ratio_max",
        "Largest product of all heads' probability ratios.",
    ),
    tamiyo_field("esper_tamiyo_advantage_mean", "advantage_mean", "Mean advantage, normalised."),
    tamiyo_field(
        "esper_tamiyo_advantage_std",
        "advantage_std",
        "Standard deviation of the advantages, normalised.",
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_skewness",
        "advantage_skewness",
        "Skewness of the advantages; above 0: few big wins.",
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_kurtosis",
        "advantage_kurtosis",
        "Excess kurtosis of the advantages; above 3: outliers.",
    ),
    tamiyo_field("esper_tamiyo_advantage_min", "advantage_min", "Smallest advantage, normalised."),
    tamiyo_field("esper_tamiyo_advantage_max", "advantage_max", "Largest advantage, normalised."),
    tamiyo_field(
        "esper_tamiyo_advantage_raw_mean", "advantage_raw_mean", "Mean advantage, not normalised."
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_raw_std",
        "advantage_raw_std",
        "Standard deviation of the advantages, not normalised.",
    ),
    update_field(
        "esper_tamiyo_advantage_pre_norm_mean",
        "pre_norm_advantage_mean",
        "Mean advantage before normalisation.",
    ),
    update_field(
        "esper_tamiyo_advantage_pre_norm_std",
        "pre_norm_advantage_std",
        "Standard deviation of the advantages before normalisation.",
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_usable_std",
        "pre_norm_advantage_std",
        "Standard deviation, before normalisation, of the advantages of steps with a choice.",
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_std_floored",
        "advantage_std_floored",
        "1 if the last update's advantages were so alike that their spread was floored.",
    ),
    tamiyo_field(
        "esper_tamiyo_advantage_positive_ratio",
        "advantage_positive_ratio",
        "Share of positive advantages; 0.4 to 0.6 is usual.",
    ),
    tamiyo_field(
        "esper_tamiyo_decision_density_ratio",
        "decision_density",
        "Share of steps in which the policy had a choice.",
    ),
    tamiyo_field(
        "esper_tamiyo_forced_step_ratio",
        "forced_step_ratio",
        "Share of steps with one legal action only.",
    ),
    update_field(
        "esper_tamiyo_usable_timesteps",
        "usable_actor_timesteps",
        "Steps of the last update that trained the actor.",
    ),
    tamiyo_field(
        "esper_tamiyo_log_prob_min_nats",
        "log_prob_min",
        "Most negative log-probability of the last update; -50 warns of underflow, -100 is next"
        " to NaN.",
    ),
    tamiyo_field(
        "esper_tamiyo_log_prob_max_nats",
        "log_prob_max",
        "Largest log-probability of the last update.",
    ),
    tamiyo_field(
        "esper_tamiyo_grad_norm",
        "grad_norm",
        "Gradient norm as the trainer reports it: before clipping today, after it in older runs.",
    ),
    update_field(
        "esper_tamiyo_grad_norm_pre_clip",
        "pre_clip_grad_norm",
        "Gradient norm before clipping.",
        zero_is_absent=True,
    ),
    gauge(
        "policy",
        "esper_tamiyo_grad_norm_window_max",
        "derived: largest gradient norm (before clipping) of the five minutes before the last"
        " update",
        "Largest gradient norm before clipping within five minutes of the last update.",
        read=lambda roots: roots["run"].grad_norm_window_max,
    ),
    tamiyo_field(
        "esper_tamiyo_gradient_cv",
        "gradient_quality.gradient_cv",
        "Coefficient of variation of the gradients; below 0.5 stable, from 2.0 noise.",
    ),
    _layer_count("esper_tamiyo_dead_layers", "dead_layers", "Parameter tensors without gradient."),
    _layer_count(
        "esper_tamiyo_exploding_layers",
        "exploding_layers",
        "Parameter tensors with an exploding gradient.",
    ),
    _layer_count(
        "esper_tamiyo_nan_gradient_tensors",
        "nan_grad_count",
        "Parameter tensors with NaN in their gradient.",
    ),
    _layer_count(
        "esper_tamiyo_inf_gradient_tensors",
        "inf_grad_count",
        "Parameter tensors with Inf in their gradient.",
    ),
    tamiyo_field(
        "esper_tamiyo_entropy_collapsed",
        "entropy_collapsed",
        "1 if the trainer says the policy's entropy collapsed.",
    ),
    tamiyo_field(
        "esper_tamiyo_explained_variance",
        "explained_variance",
        "Explained variance of the value function: a diagnostic, NaN when returns do not vary."
        " Never alert on it.",
    ),
    tamiyo_field(
        "esper_tamiyo_value_nrmse", "value_nrmse", "Normalised error of the value function."
    ),
    tamiyo_field(
        "esper_tamiyo_return_low_variance",
        "ev_low_return_variance",
        "1 if the last update's returns varied too little to judge the value function by.",
    ),
    tamiyo_field(
        "esper_tamiyo_explained_return_variance",
        "ev_return_variance",
        "Variance of the returns that explained variance was computed from.",
    ),
    update_field(
        "esper_tamiyo_return_low_variance_updates",
        "ev_low_return_variance_count",
        "Low-variance updates so far, as the trainer counts them.",
    ),
    tamiyo_field("esper_tamiyo_value_mean", "value_mean", "Mean value estimate."),
    tamiyo_field(
        "esper_tamiyo_value_std", "value_std", "Standard deviation of the value estimates."
    ),
    tamiyo_field("esper_tamiyo_value_min", "value_min", "Smallest value estimate."),
    tamiyo_field("esper_tamiyo_value_max", "value_max", "Largest value estimate."),
    gauge(
        "policy",
        "esper_tamiyo_initial_value_spread",
        "tamiyo.initial_value_spread",
        "Spread of the value estimates after 50 batches, to judge later spreads by.",
    ),
    update_field(
        "esper_tamiyo_value_target_scale", "value_target_scale", "Scale of the value targets."
    ),
    tamiyo_field(
        "esper_tamiyo_value_return_correlation",
        "value_function.v_return_correlation",
        "Correlation of value estimates and returns, the first thing to look at; below 0.5 the"
        " value function does not learn.",
    ),
    tamiyo_field(
        "esper_tamiyo_td_error_mean", "value_function.td_error_mean", "Mean TD error; its bias."
    ),
    tamiyo_field(
        "esper_tamiyo_td_error_std",
        "value_function.td_error_std",
        "Standard deviation of the TD error.",
    ),
    tamiyo_field(
        "esper_tamiyo_bellman_error",
        "value_function.bellman_error",
        "Mean squared Bellman error; spikes come before NaN losses.",
    ),
    tamiyo_field(
        "esper_tamiyo_return_p10", "value_function.return_p10", "10th percentile of returns."
    ),
    tamiyo_field("esper_tamiyo_return_p50", "value_function.return_p50", "Median return."),
    tamiyo_field(
        "esper_tamiyo_return_p90", "value_function.return_p90", "90th percentile of returns."
    ),
    tamiyo_field(
        "esper_tamiyo_return_variance", "value_function.return_variance", "Variance of returns."
    ),
    tamiyo_field(
        "esper_tamiyo_return_skewness", "value_function.return_skewness", "Skewness of returns."
    ),
    update_field("esper_tamiyo_return_mean", "return_mean", "Mean return."),
    update_field("esper_tamiyo_return_std", "return_std", "Standard deviation of returns."),
    tamiyo_field(
        "esper_tamiyo_q_value_variance",
        "q_variance",
        "Variance of the operations' Q-values; near 0 the critic ignores the operation.",
    ),
    tamiyo_field(
        "esper_tamiyo_q_value_spread", "q_spread", "Largest minus smallest operation's Q-value."
    ),
    tamiyo_field("esper_tamiyo_q_aux_loss", "q_aux_loss", "Auxiliary loss of the Q head."),
    update_field(
        "esper_tamiyo_loss_scale",
        "loss_scale",
        "AMP loss scale; of several hosts' scalers the smallest.",
    ),
    update_field(
        "esper_tamiyo_rollback_attempts",
        "rollback_attempt_count",
        "Rollbacks attempted in the last update's batch, as the trainer counts them; misses some.",
    ),
    update_field(
        "esper_tamiyo_rollback_transitions",
        "rollback_count",
        "Transitions of the last update that a rollback touched.",
    ),
    update_field(
        "esper_tamiyo_rollbacks_unattributed",
        "rollback_unattributed_count",
        "Rollbacks of the last update's batch that no decision could be blamed for.",
    ),
    tamiyo_field(
        "esper_tamiyo_update_seconds",
        "update_time_ms",
        "How long the last update took.",
        scale=0.001,
    ),
    tamiyo_field(
        "esper_tamiyo_early_stop_epoch",
        "early_stop_epoch",
        "Inner epoch at which KL stopped the last update early; absent if it did not.",
    ),
    update_field(
        "esper_tamiyo_update_index", "ppo_update_idx", "Index of the update in its batch, from 1."
    ),
    gauge(
        "policy",
        "esper_tamiyo_update_batch",
        ("tamiyo.ppo_batch", UPDATE + "batch"),
        "Batch that the last update belongs to.",
        read=_update_batch,
    ),
    gauge(
        "policy",
        "esper_tamiyo_last_update_timestamp_seconds",
        "derived: time of the last policy update's event",
        "When the last policy update was reported.",
        read=lambda roots: (
            roots["run"].last_update_at.timestamp() if roots["run"].last_update_at else None
        ),
    ),
)
