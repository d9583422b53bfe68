"""What a batch of episodes reports of the run: its speed, accuracies, returns, and its faults."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.families.run_metrics import (
    BATCH,
    PERCENT,
    STATS,
    after_batch,
    event_field,
)
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge


def _mean_of(path: str, history: str) -> Any:
    def read(roots: Any) -> Any:
        snapshot = roots["snapshot"]
        measured = any(getattr(env, history) for env in snapshot.envs.values())
        return getattr(snapshot, path) if measured else None

    return read


METRICS: tuple[Metric, ...] = (
    gauge(
        "run",
        "esper_tolaria_epochs_per_second",
        "derived: episodes x epochs since the start, by the events' times",
        "Host epochs a second since the start of the run.",
        read=lambda roots: (
            roots["snapshot"].vitals.epochs_per_second
            if roots["snapshot"].vitals.throughput_present
            else None
        ),
    ),
    gauge(
        "run",
        "esper_tolaria_batches_per_second",
        "derived: batches since the start, by the events' times",
        "Batches a second since the start of the run.",
        read=lambda roots: (
            roots["snapshot"].vitals.batches_per_hour / 3600.0
            if roots["snapshot"].vitals.throughput_present
            else None
        ),
    ),
    gauge(
        "run",
        "esper_simic_episodes_per_second",
        "derived: episodes of the last batches, by the events' times",
        "Episodes a second, over the last batches.",
        read=lambda roots: roots["snapshot"].episode_stats.episodes_per_second or None,
    ),
    gauge(
        "run",
        "esper_tolaria_mean_accuracy_ratio",
        "aggregate_mean_accuracy",
        "Mean accuracy of the environments' hosts, 0 to 1. Absent between two episodes.",
        scale=PERCENT,
        read=_mean_of("aggregate_mean_accuracy", "accuracy_history"),
    ),
    gauge(
        "run",
        "esper_simic_mean_reward",
        "aggregate_mean_reward",
        "Mean of the environments' last rewards.",
        read=_mean_of("aggregate_mean_reward", "reward_history"),
    ),
    gauge(
        "run",
        "esper_simic_episode_return",
        ("tamiyo.current_episode_return", "batch_avg_reward", BATCH + "avg_reward"),
        "Mean return of the last batch's episodes.",
        read=after_batch("batch_avg_reward"),
    ),
    event_field(
        BATCH,
        "esper_tolaria_batch_accuracy_ratio",
        "avg_accuracy",
        "Mean final accuracy of the last batch, 0 to 1.",
        scale=PERCENT,
    ),
    event_field(
        BATCH,
        "esper_tolaria_rolling_accuracy_ratio",
        "rolling_accuracy",
        "Rolling mean of the batches' accuracies, 0 to 1.",
        scale=PERCENT,
    ),
    gauge(
        "run",
        "esper_simic_rolling_accuracy_change_ratio",
        (
            "derived: rolling_delta of the last trend event of any kind",
            "event:PLATEAU_DETECTED.rolling_delta",
            "event:DEGRADATION_DETECTED.rolling_delta",
            "event:IMPROVEMENT_DETECTED.rolling_delta",
        ),
        "Change of the rolling accuracy when the last trend was detected, 0 to 1.",
        scale=PERCENT,
        read=lambda roots: roots["trend"].rolling_delta if roots["trend"] else None,
    ),
    event_field(
        STATS,
        "esper_kasmina_batch_seeds_created",
        "seeds_created",
        "Seeds created in the last batch.",
    ),
    event_field(
        STATS,
        "esper_kasmina_batch_seeds_fossilized",
        "seeds_fossilized",
        "Seeds fossilised in the last batch.",
    ),
    event_field(STATS, "esper_simic_step_seconds", "step_time_ms", "Time of a step.", scale=0.001),
    event_field(
        STATS,
        "esper_simic_dataloader_wait_seconds",
        "dataloader_wait_ms",
        "Time a step waits for data.",
        scale=0.001,
    ),
    event_field(STATS, "esper_simic_frames_per_second", "fps", "Environment steps a second."),
    *(
        event_field(
            "event:GOVERNOR_ROLLBACK.",
            f"esper_tolaria_last_rollback_{part}",
            field,
            f"{text} of the last rollback.",
        )
        for part, field, text in (
            ("loss", "loss_at_panic", "Loss"),
            ("loss_threshold", "loss_threshold", "Loss that the governor allows, at the time"),
            ("panics", "consecutive_panics", "Panics in a row"),
            ("penalty", "raw_penalty", "Penalty"),
            ("normalized_penalty", "normalized_penalty", "Normalised penalty"),
            ("severity", "rollback_severity", "Severity"),
            ("evidence", "watch_window_evidence", "Evidence of the watch window"),
        )
    ),
    *(
        event_field(
            "event:REWARD_HACKING_SUSPECTED.",
            f"esper_simic_reward_hacking_{part}",
            field,
            f"{text} of the last suspicion of reward hacking.",
            scale=scale,
        )
        for part, field, text, scale in (
            ("contribution_ratio", "seed_contribution", "Contribution claimed, 0 to 1,", PERCENT),
            ("improvement_ratio", "total_improvement", "Improvement seen, 0 to 1,", PERCENT),
            ("ratio", "ratio", "Contribution over improvement", 1.0),
            ("threshold_ratio", "threshold", "Threshold on that ratio", 1.0),
            ("contribution_threshold", "contribution_threshold", "Contribution threshold", 1.0),
            ("degradation_threshold", "degradation_threshold", "Degradation threshold", 1.0),
        )
    ),
    *(
        event_field(
            "event:PERFORMANCE_DEGRADATION.",
            f"esper_simic_degradation_{part}_ratio",
            field,
            f"{text} at the last performance degradation, 0 to 1.",
            scale=PERCENT,
        )
        for part, field, text in (
            ("accuracy", "current_acc", "Accuracy"),
            ("rolling_accuracy", "rolling_avg_acc", "Rolling accuracy"),
            ("drop", "drop_percent", "Drop"),
            ("threshold", "threshold_percent", "Drop that counts as degradation,"),
        )
    ),
)
