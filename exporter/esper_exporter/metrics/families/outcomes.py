"""Attribution, best episodes, and what is counted over epochs, episodes and anomalies."""

from __future__ import annotations

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.metrics.families.host import ENV, PERCENT
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram

SHAPLEY_METRICS: tuple[Metric, ...] = tuple(
    gauge(
        "shapley",
        f"esper_simic_shapley_{part}",
        f"{ENV}shapley_snapshot.values[{{slot_id}}].{field}",
        text,
    )
    for part, field, text in (
        ("mean", "mean", "Shapley value of a slot: its mean contribution, percent points."),
        ("std", "std", "Standard deviation of a slot's Shapley value, percent points."),
        ("samples", "n_samples", "Permutations that a slot's Shapley value was sampled from."),
    )
)

BEST_RUN_METRICS: tuple[Metric, ...] = tuple(
    gauge(
        "best_run",
        f"esper_simic_best_run_{part}",
        f"best_runs[{{place}}].{field}",
        text,
        scale=scale,
    )
    for part, field, text, scale in (
        (
            "peak_accuracy_ratio",
            "peak_accuracy",
            "Peak accuracy of the run's best episodes.",
            PERCENT,
        ),
        ("final_accuracy_ratio", "final_accuracy", "Final accuracy of the best episodes.", PERCENT),
        ("env", "env_id", "Environment of the best episodes.", 1.0),
        ("episode", "episode", "Number of the best episodes.", 1.0),
        ("epoch", "epoch", "Epoch of their peak.", 1.0),
        ("growth_ratio", "growth_ratio", "Size of the network at the peak over the host's.", 1.0),
        ("cumulative_reward", "cumulative_reward", "Sum of rewards at their end.", 1.0),
        ("peak_cumulative_reward", "peak_cumulative_reward", "Sum of rewards at their peak.", 1.0),
        ("host_loss", "host_loss", "Host loss at their end.", 1.0),
    )
)

COUNTERS: tuple[Metric, ...] = (
    counter(
        "esper_tolaria_epochs_total",
        "derived: number of EPOCH_COMPLETED events",
        "Host epochs finished, all environments.",
    ),
    counter(
        "esper_tolaria_batches_total",
        "derived: number of BATCH_EPOCH_COMPLETED events",
        "Batches of episodes finished.",
    ),
    counter(
        "esper_tolaria_rollbacks_total",
        "derived: number of GOVERNOR_ROLLBACK events by panic reason, else by reason",
        "Emergency rollbacks by reason.",
        labels=("reason",),
        initial=(
            ("nan",),
            ("lobotomy",),
            ("divergence",),
        ),
    ),
    histogram(
        "esper_tolaria_step_duration_seconds",
        "derived: forward_time_ms and its siblings of every EPOCH_COMPLETED",
        "Host training time by phase, from trainers that report it.",
        (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        labels=("phase",),
    ),
    counter(
        "esper_simic_episodes_total",
        "derived: number of EPISODE_OUTCOME events by outcome_type",
        "Episodes by outcome.",
        labels=("outcome",),
        initial=(("success",), ("timeout",), ("unknown",)),
    ),
    histogram(
        "esper_simic_episode_reward",
        "derived: episode_reward of every EPISODE_OUTCOME",
        "Reward of episodes.",
        (-100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0),
    ),
    histogram(
        "esper_simic_episode_final_accuracy_ratio",
        "derived: final_accuracy of every EPISODE_OUTCOME, 0 to 1",
        "Final accuracy of episodes.",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    ),
    counter(
        "esper_simic_trends_total",
        "derived: number of PLATEAU_, DEGRADATION_ and IMPROVEMENT_DETECTED events",
        "Trends that the trainer detected.",
        labels=("trend",),
        initial=(("plateau",), ("degradation",), ("improvement",)),
    ),
    counter(
        "esper_simic_anomalies_total",
        "derived: number of anomaly events by anomaly_type",
        "Anomalies by type. numerical_instability also comes for values that are NaN by design:"
        " never alert on it.",
        labels=("type",),
        initial=(
            *((f"entropy_collapse_{head}",) for head in HEADS),
            ("gradient_norm_drift",),
            ("gradient_health_drift",),
            ("numerical_instability",),
            ("ppo_finiteness_skip",),
            ("ppo_finiteness_failure",),
            ("ratio_explosion",),
            ("ratio_collapse",),
            ("ratio_nan_inf",),
            ("value_collapse",),
        ),
    ),
    counter(
        "esper_simic_performance_degradations_total",
        "derived: number of PERFORMANCE_DEGRADATION events",
        "Times an environment fell below its rolling accuracy.",
    ),
    counter(
        "esper_simic_reward_hacking_suspected_total",
        "derived: number of REWARD_HACKING_SUSPECTED events by pattern",
        "Suspicions of reward hacking.",
        labels=("pattern",),
    ),
    counter(
        "esper_simic_gaming_steps_total",
        "derived: number of steps with ratio_penalty or alpha_shock",
        "Steps in which an anti-gaming penalty struck.",
    ),
    counter(
        "esper_simic_counterfactual_matrices_total",
        "derived: number of COUNTERFACTUAL_MATRIX_COMPUTED events",
        "Counterfactual matrices computed.",
    ),
    counter(
        "esper_simic_counterfactual_compute_seconds_total",
        "derived: sum of compute_time_ms of the counterfactual matrices",
        "Time spent on counterfactual matrices.",
    ),
    histogram(
        "esper_simic_phase_duration_seconds",
        "derived: wall_ms of every phase of every PHASE_PROFILE_COMPLETED",
        "Wall time of the trainer's phases.",
        (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        labels=("phase",),
        initial=(("train",), ("val",), ("rollout",), ("action",), ("ppo_update",)),
    ),
    counter(
        "esper_simic_phase_cpu_seconds_total",
        "derived: sum of python_cpu_ms by phase",
        "CPU time that Python spent in the trainer's phases.",
        labels=("phase",),
        initial=(("train",), ("val",), ("rollout",), ("action",), ("ppo_update",)),
    ),
)
