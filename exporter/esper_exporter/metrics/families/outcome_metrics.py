"""Attribution, best episodes, and what is counted over epochs, episodes and anomalies."""

from __future__ import annotations

from esper_exporter.metrics.families.host_metrics import ENV, PERCENT
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram
from esper_exporter.state import counted

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
        counted.EPOCHS,
        "derived: number of EPOCH_COMPLETED events",
        "Host epochs finished, all environments.",
    ),
    counter(
        counted.BATCHES,
        "derived: number of BATCH_EPOCH_COMPLETED events",
        "Batches of episodes finished.",
    ),
    counter(
        counted.ROLLBACKS,
        "derived: number of GOVERNOR_ROLLBACK events by panic reason, else by reason",
        "Emergency rollbacks by reason.",
    ),
    histogram(
        counted.STEP_DURATION,
        "derived: forward_time_ms and its siblings of every EPOCH_COMPLETED",
        "Host training time by phase, from trainers that report it.",
    ),
    counter(
        counted.EPISODES,
        "derived: number of EPISODE_OUTCOME events by outcome_type",
        "Episodes by outcome.",
    ),
    histogram(
        counted.EPISODE_REWARD,
        "derived: episode_reward of every EPISODE_OUTCOME",
        "Reward of episodes.",
    ),
    histogram(
        counted.EPISODE_FINAL_ACCURACY,
        "derived: final_accuracy of every EPISODE_OUTCOME, 0 to 1",
        "Final accuracy of episodes.",
    ),
    counter(
        counted.TRENDS,
        "derived: number of PLATEAU_, DEGRADATION_ and IMPROVEMENT_DETECTED events",
        "Trends that the trainer detected.",
    ),
    counter(
        counted.ANOMALIES,
        "derived: number of anomaly events by anomaly_type",
        "Anomalies by type. numerical_instability also comes for values that are NaN by design:"
        " never alert on it.",
    ),
    counter(
        counted.PERFORMANCE_DEGRADATIONS,
        "derived: number of PERFORMANCE_DEGRADATION events",
        "Times an environment fell below its rolling accuracy.",
    ),
    counter(
        counted.REWARD_HACKING,
        "derived: number of REWARD_HACKING_SUSPECTED events by pattern",
        "Suspicions of reward hacking.",
    ),
    counter(
        counted.GAMING_STEPS,
        "derived: number of steps with ratio_penalty or alpha_shock",
        "Steps in which an anti-gaming penalty struck.",
    ),
    counter(
        counted.COUNTERFACTUAL_MATRICES,
        "derived: number of COUNTERFACTUAL_MATRIX_COMPUTED events",
        "Counterfactual matrices computed.",
    ),
    counter(
        counted.COUNTERFACTUAL_SECONDS,
        "derived: sum of compute_time_ms of the counterfactual matrices",
        "Time spent on counterfactual matrices.",
    ),
    histogram(
        counted.PHASE_DURATION,
        "derived: wall_ms of every phase of every PHASE_PROFILE_COMPLETED",
        "Wall time of the trainer's phases.",
    ),
    counter(
        counted.PHASE_CPU_SECONDS,
        "derived: sum of python_cpu_ms by phase",
        "CPU time that Python spent in the trainer's phases.",
    ),
)
