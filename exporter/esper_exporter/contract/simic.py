"""Simic, the trainer's view: runs, trends, anomalies, outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingStartedPayload:
    """A run begins, with its configuration. The hyperparameters may be None: a loop that is not
    esper's has no parameter budget, say."""

    n_envs: int
    max_epochs: int
    max_batches: int
    task: str
    host_params: int
    slot_ids: tuple[str, ...]
    seed: int | None
    n_episodes: int | None
    lr: float | None
    clip_ratio: float
    entropy_coef: float | None
    param_budget: int | None
    policy_device: str
    env_devices: tuple[str, ...]
    reward_mode: str
    episode_id: str | None = None
    resume_path: str | None = None
    start_episode: int | None = None
    entropy_anneal: dict[str, float] | None = None
    world_size: int | None = None
    rank: int | None = None
    local_rank: int | None = None
    amp_enabled: bool | None = None
    amp_dtype: str | None = None
    compile_enabled: bool | None = None
    compile_backend: str | None = None
    compile_mode: str | None = None
    proof_baseline_mode: str | None = None
    proof_baseline_pair_id: str | None = None
    proof_baseline_lifecycle_policy: str | None = None
    proof_baseline_schedule_id: str | None = None
    proof_baseline_schedule_hash: str | None = None
    proof_baseline_schedule_version: int | None = None
    proof_baseline_schedule_action_count: int | None = None
    action_heads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CheckpointLoadedPayload:
    """A run goes on from a checkpoint."""

    path: str
    start_episode: int
    source: str | None = None
    avg_accuracy: float | None = None


@dataclass(frozen=True)
class TrendDetectedPayload:
    """The rolling accuracy (percent) is on a plateau, falls or rises."""

    batch_idx: int
    episodes_completed: int
    rolling_delta: float
    rolling_avg_accuracy: float
    prev_rolling_avg_accuracy: float


@dataclass(frozen=True)
class AnomalyDetectedPayload:
    """Something in a policy update was not as it should be."""

    anomaly_type: str
    episode: int
    batch: int
    inner_epoch: int
    total_episodes: int
    detail: str | None = None
    gradient_stats: tuple[dict[str, Any], ...] | None = None
    stability: dict[str, Any] | None = None
    ratio_diagnostic: dict[str, Any] | None = None
    action_heads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PerformanceDegradationPayload:
    """An environment fell below its rolling accuracy (percent)."""

    env_id: int
    current_acc: float
    rolling_avg_acc: float
    drop_percent: float
    threshold_percent: float
    episode_idx: int | None = None
    training_progress: float | None = None


@dataclass(frozen=True)
class RewardHackingSuspectedPayload:
    """A seed is rewarded more than it can have earned."""

    pattern: str
    slot_id: str
    seed_id: str
    seed_contribution: float
    total_improvement: float
    ratio: float | None = None
    threshold: float | None = None
    contribution_threshold: float | None = None
    degradation_threshold: float | None = None


@dataclass(frozen=True)
class EpisodeOutcomePayload:
    """One environment's episode ended. Accuracy is percent."""

    env_id: int
    episode_idx: int
    final_accuracy: float
    param_ratio: float
    num_fossilized: int
    num_contributing_fossilized: int
    episode_reward: float
    stability_score: float
    reward_mode: str
    episode_length: int | None = None
    outcome_type: str | None = None
    germinate_count: int | None = None
    prune_count: int | None = None
    fossilize_count: int | None = None
