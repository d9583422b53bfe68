"""Tolaria, host training: epochs, batches, rollbacks."""

from __future__ import annotations

import msgspec

from esper_exporter.contract.analytics import ObservationStatsTelemetry
from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Whole


class SeedTelemetry(msgspec.Struct, frozen=True, gc=False):
    """One slot's seed at the end of an epoch; ``accuracy_delta`` is in percent points."""

    stage: str
    blueprint_id: str | None = None
    accuracy_delta: float | None = None
    epochs_in_stage: Whole | None = None
    alpha: float | None = None
    grad_ratio: float | None = None
    has_vanishing: bool | None = None
    has_exploding: bool | None = None
    contribution_velocity: float | None = None
    interaction_sum: float | None = None
    boost_received: float | None = None
    upstream_alpha_sum: float | None = None
    downstream_alpha_sum: float | None = None


class TolariaEpochPayload(msgspec.Struct, frozen=True, gc=False):
    """One environment finished one epoch. Accuracies are percent, times milliseconds."""

    env_id: EnvId
    val_accuracy: float
    val_loss: float
    inner_epoch: Whole
    episode_idx: Whole | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    host_grad_norm: float | None = None
    seeds: dict[str, SeedTelemetry] | None = None
    observation_stats: ObservationStatsTelemetry | None = None
    forward_time_ms: float | None = None
    backward_time_ms: float | None = None
    optimizer_step_time_ms: float | None = None
    data_transfer_time_ms: float | None = None
    host_epoch_time_ms: float | None = None
    host_train_loss: float | None = None
    host_grad_norm_pre_clip: float | None = None
    host_lr: float | None = None


class TolariaBatchPayload(msgspec.Struct, frozen=True, gc=False):
    """All environments ended their episodes. Accuracies are percent."""

    episodes_completed: Whole
    batch_idx: Whole
    avg_accuracy: float
    avg_reward: float
    total_episodes: Whole
    n_envs: Whole
    start_episode: Whole | None = None
    requested_episodes: Whole | None = None
    rolling_accuracy: float | None = None
    env_accuracies: tuple[float, ...] | None = None


class TolariaRollbackPayload(msgspec.Struct, frozen=True, gc=False):
    """The governor restored an environment after its training went wrong."""

    env_id: EnvId
    device: str
    reason: str
    episode_idx: Whole | None = None
    loss_at_panic: float | None = None
    loss_threshold: float | None = None
    consecutive_panics: Whole | None = None
    panic_reason: str | None = None
    triggering_action_id: str | None = None
    raw_penalty: float | None = None
    normalized_penalty: float | None = None
    rollback_severity: float | None = None
    watch_window_evidence: float | None = None
    missing_keys: tuple[str, ...] | None = None
    unexpected_keys: tuple[str, ...] | None = None


EVENTS = (
    EventType(
        "TOLARIA_EPOCH_COMPLETED",
        TolariaEpochPayload,
        "apply_host.apply_epoch",
        aliases=("EPOCH_COMPLETED",),
        identity=("env_id", "inner_epoch", "episode_idx", "val_accuracy", "val_loss"),
    ),
    EventType(
        "TOLARIA_BATCH_COMPLETED",
        TolariaBatchPayload,
        "apply_host.apply_batch",
        aliases=("BATCH_EPOCH_COMPLETED",),
        identity=("batch_idx", "episodes_completed", "avg_accuracy", "avg_reward"),
        latest="batch",
    ),
    EventType(
        "TOLARIA_ROLLBACK",
        TolariaRollbackPayload,
        "apply_host.apply_rollback",
        aliases=("GOVERNOR_ROLLBACK",),
        identity=("env_id", "reason", "episode_idx", "loss_at_panic"),
        latest="rollback",
        group_unreliable=True,
    ),
)
