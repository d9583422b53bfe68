"""The run: its configuration, progress, aggregates and resources."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.metric import RUN_LABELS, Metric
from esper_exporter.metrics.metric_builders import counter, gauge, info, states
from esper_exporter.state import counted
from esper_exporter.state.failure_reason import REASONS

PERCENT = 0.01
STARTED = "event:TRAINING_STARTED."
BATCH = "event:BATCH_EPOCH_COMPLETED."
STATS = "event:ANALYTICS_SNAPSHOT[kind=batch_stats]."

JOB_LABELS = ("job_id", "partition", "user")
"""The batch job that the run belongs to, as its scheduler names it."""

RUN_INFO_LABELS = (
    "task",
    "reward_mode",
    "episode_id",
    "seed",
    "policy_device",
    "env_devices",
    "world_size",
    "local_rank",
    "amp_dtype",
    "compile_backend",
    "compile_mode",
    "resume_path",
    "entropy_scale",
    "proof_baseline_mode",
    *JOB_LABELS,
)
"""A run's configuration as text; its numbers are separate gauges."""


def _clock(attribute: str) -> Any:
    def read(roots: Any) -> Any:
        moment = getattr(roots["run"], attribute)
        return None if moment is None else moment.timestamp()

    return read


def once_started(path: str) -> Any:
    """A value of the snapshot that means nothing before a run has begun."""
    head, _, rest = path.partition(".")

    def read(roots: Any) -> Any:
        if not roots["run"].began:
            return None
        value = getattr(roots["snapshot"], head)
        for part in rest.split(".") if rest else ():
            value = getattr(value, part)
        return value

    return read


def after_batch(path: str) -> Any:
    """A value that exists from the end of the first batch."""
    head, _, rest = path.partition(".")

    def read(roots: Any) -> Any:
        if not roots["run"].batch_ended:
            return None
        value = getattr(roots["snapshot"], head)
        return getattr(value, rest) if rest else value

    return read


def _episode(roots: Any) -> Any:
    run = roots["run"]
    known = run.batch_ended or (run.given and roots["snapshot"].current_episode)
    if run.started is not None and run.started.start_episode is not None:
        known = True
    return roots["snapshot"].current_episode if known else None


def _progress(roots: Any) -> Any:
    snapshot = roots["snapshot"]
    if not snapshot.max_batches or not roots["run"].batch_ended:
        return None
    return snapshot.current_batch / snapshot.max_batches


def _compiled(roots: Any) -> Any:
    started = roots["run"].started
    if started is not None:
        return started.compile_enabled
    return roots["snapshot"].tamiyo.infrastructure.compile_enabled if roots["run"].given else None


def snapshot_field(name: str, path: str, help: str, **options: Any) -> Metric:
    return gauge("run", name, path, help, read=once_started(path), **options)


def batch_end(name: str, path: str, help: str, **options: Any) -> Metric:
    return gauge("run", name, path, help, read=after_batch(path), **options)


def event_field(event: str, name: str, field: str, help: str, **options: Any) -> Metric:
    return gauge("run", name, event + field, help, **options)


METRICS: tuple[Metric, ...] = (
    gauge(
        "run",
        "esper_run_start_timestamp_seconds",
        "derived: time of TRAINING_STARTED",
        "When the run started.",
        read=_clock("started_at"),
    ),
    gauge(
        "run",
        "esper_run_last_event_timestamp_seconds",
        "derived: time of the newest event",
        "Time of the run's newest event; its age shows a run that went silent.",
        read=_clock("last_event_at"),
    ),
    gauge(
        "run",
        "esper_run_checkpoint_loaded_timestamp_seconds",
        "derived: time of CHECKPOINT_LOADED",
        "When the run resumed from a checkpoint; absent if it did not.",
        read=_clock("checkpoint_at"),
    ),
    event_field(
        "event:CHECKPOINT_LOADED.",
        "esper_run_checkpoint_episode",
        "start_episode",
        "Episode from which the loaded checkpoint continues.",
    ),
    event_field(
        "event:CHECKPOINT_LOADED.",
        "esper_run_checkpoint_accuracy_ratio",
        "avg_accuracy",
        "Mean accuracy stored in the loaded checkpoint, 0 to 1.",
        scale=PERCENT,
    ),
    gauge(
        "run",
        "esper_run_active",
        "derived: 1 until the run ends, or another run of the same group begins in the process",
        "1 while the run is active, 0 once it has ended or the next one of its group has begun.",
        read=lambda roots: roots["run"].active and roots["run"].ended_at is None,
    ),
    gauge(
        "run",
        "esper_run_finished",
        "derived: 1 once all batches are done, or the exporter was closed or the process ended and"
        " nothing had failed",
        "1 once the run has ended well. With esper_run_failed at 0 too the run is active or, with"
        " esper_run_active at 0, ended for an unknown reason.",
        read=lambda roots: roots["run"].finished,
    ),
    states(
        "run",
        "esper_run_failed",
        "reason",
        REASONS,
        "derived: 1 for the reason that ended the run: an exception, by its kind, or a signal",
        "1 for the reason for which the run has failed, 0 for the others.",
        lambda roots: roots["run"].failure or "",
    ),
    gauge(
        "run",
        "esper_run_end_timestamp_seconds",
        "derived: time of the event that ended the run, else when the process ended",
        "When the run ended: by the event that ended it, else by the exporter's clock; absent while"
        " it is active.",
        read=_clock("ended_at"),
    ),
    gauge("run", "esper_run_episode", "current_episode", "Episodes finished.", read=_episode),
    batch_end("esper_run_batch", "current_batch", "Batches finished."),
    snapshot_field(
        "esper_run_batches",
        "max_batches",
        "Batches planned; absent without a planned end.",
        zero_is_absent=True,
    ),
    gauge(
        "run",
        "esper_run_epoch",
        "current_epoch",
        "Epoch within the running episode.",
        read=lambda roots: (
            roots["snapshot"].current_epoch
            if roots["run"].epoch_reported
            or (roots["run"].given and roots["snapshot"].current_epoch)
            else None
        ),
    ),
    snapshot_field(
        "esper_run_episode_epochs", "max_epochs", "Epochs of an episode.", zero_is_absent=True
    ),
    batch_end(
        "esper_run_episodes",
        "batch_total_episodes",
        "Episodes planned; absent without a planned end.",
        zero_is_absent=True,
    ),
    gauge(
        "run",
        "esper_run_progress_ratio",
        "derived: current_batch / max_batches",
        "Share of the run's batches that are done, 0 to 1.",
        read=_progress,
    ),
    event_field(STARTED, "esper_run_environments", "n_envs", "Environments of the run."),
    event_field(STARTED, "esper_run_configured_episodes", "n_episodes", "Episodes configured."),
    event_field(STARTED, "esper_run_start_episode", "start_episode", "Episode the run began with."),
    event_field(STARTED, "esper_run_world_size", "world_size", "Processes of the run."),
    event_field(STARTED, "esper_run_amp_enabled", "amp_enabled", "1 if mixed precision is on."),
    snapshot_field("esper_run_initial_learning_rate", "run_config.lr", "Learning rate configured."),
    snapshot_field("esper_run_clip_ratio", "run_config.clip_ratio", "PPO clip range configured."),
    snapshot_field(
        "esper_run_initial_entropy_coefficient",
        "run_config.entropy_coef",
        "Entropy coefficient configured.",
    ),
    snapshot_field(
        "esper_run_param_budget",
        "run_config.param_budget",
        "Parameters that all seeds together may have.",
    ),
    snapshot_field("esper_tolaria_host_params", "vitals.host_params", "Parameters of the host."),
    gauge(
        "run",
        "esper_torch_compile_enabled",
        "tamiyo.infrastructure.compile_enabled",
        "1 if torch.compile is on.",
        read=_compiled,
    ),
)

COUNTERS: tuple[Metric, ...] = (
    info(
        "esper_run_info",
        (*RUN_LABELS, *RUN_INFO_LABELS),
        "derived: the text fields of TRAINING_STARTED; the settings job_id, job_partition and"
        " job_user, by default Slurm's",
        "Configuration of the run, as labels.",
    ),
    counter(
        counted.EVENTS,
        "derived: number of events applied, by the name they came with",
        "Events of the run by type.",
    ),
    counter(
        counted.EVENTS_OUT_OF_BOUNDS,
        "derived: number of events about an environment or slot beyond the bound on how many",
        "Events whose environment or slot is not shown because there are too many.",
    ),
    counter(
        counted.CHECKPOINTS_LOADED,
        "derived: number of CHECKPOINT_LOADED events",
        "Checkpoints loaded.",
    ),
    counter(
        counted.MEMORY_WARNINGS,
        "derived: number of MEMORY_WARNING events",
        "Memory warnings of the trainer.",
    ),
)
