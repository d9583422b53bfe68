"""Tolaria, host training: epochs, batches, rollbacks."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from esper_exporter.contract.analytics import ObservationStatsTelemetry
from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Label, Whole
from esper_exporter.contract.unexported import LABEL, POSITION, SAME, STATE, Unexported


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
    unexported: ClassVar[Unexported] = {
        STATE + "esper_kasmina_seed_*": (
            "accuracy_delta epochs_in_stage alpha grad_ratio has_vanishing has_exploding"
            " contribution_velocity interaction_sum boost_received upstream_alpha_sum"
            " downstream_alpha_sum"
        ),
    }


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
    seeds: dict[Label, SeedTelemetry] | None = None
    observation_stats: ObservationStatsTelemetry | None = None
    forward_time_ms: float | None = None
    backward_time_ms: float | None = None
    optimizer_step_time_ms: float | None = None
    data_transfer_time_ms: float | None = None
    host_epoch_time_ms: float | None = None
    host_train_loss: float | None = None
    host_grad_norm_pre_clip: float | None = None
    host_lr: float | None = None
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        POSITION: "episode_idx",
        STATE + "esper_tolaria_host_accuracy_ratio, …_host_loss, …_env_epoch": (
            "val_accuracy val_loss inner_epoch"
        ),
        STATE + "esper_tamiyo_observation_*": "observation_stats",
        "a histogram: esper_tolaria_step_duration_seconds": (
            "forward_time_ms backward_time_ms optimizer_step_time_ms data_transfer_time_ms"
            " host_epoch_time_ms"
        ),
    }


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
    unexported: ClassVar[Unexported] = {
        STATE + "esper_run_* and esper_simic_episode_return": (
            "episodes_completed batch_idx total_episodes"
        ),
        "configuration, reported by TRAINING_STARTED": "n_envs start_episode requested_episodes",
        SAME + "esper_simic_episode_last_accuracy_ratio": "env_accuracies",
    }


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
    unexported: ClassVar[Unexported] = {POSITION: "env_id episode_idx"}


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
