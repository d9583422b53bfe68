"""Simic, the trainer's view: runs, trends, anomalies, outcomes."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, Label, Seed, Text, Whole
from esper_exporter.contract.unexported import LABEL, POSITION, SAME, STATE, TEXT_ONLY, Unexported


class TrainingStartedPayload(msgspec.Struct, frozen=True, gc=False):
    """A run begins, with its configuration. The hyperparameters may be None: a loop that is not
    esper's has no parameter budget, say."""

    n_envs: Whole
    max_epochs: Whole
    max_batches: Whole
    task: str
    host_params: Whole
    slot_ids: tuple[str, ...]
    seed: Seed | None
    n_episodes: Whole | None
    lr: float | None
    clip_ratio: float
    entropy_coef: float | None
    param_budget: Whole | None
    policy_device: str
    env_devices: tuple[str, ...]
    reward_mode: str
    episode_id: str | None = None
    resume_path: str | None = None
    start_episode: Whole | None = None
    entropy_anneal: dict[Label, float] | None = None
    world_size: Whole | None = None
    rank: Whole | None = None
    local_rank: Whole | None = None
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
    proof_baseline_schedule_version: Whole | None = None
    proof_baseline_schedule_action_count: Whole | None = None
    action_heads: tuple[str, ...] | None = None
    unexported: ClassVar[Unexported] = {
        STATE + "esper_run_*, esper_tolaria_host_params, esper_torch_compile_enabled": (
            "max_epochs max_batches host_params lr clip_ratio entropy_coef param_budget"
            " compile_enabled"
        ),
        "a schedule; esper_tamiyo_entropy_coefficient is its current value": "entropy_anneal",
        "a label of esper_run_info": "seed local_rank",
        LABEL: "rank",
        TEXT_ONLY: "proof_baseline_schedule_version proof_baseline_schedule_action_count",
    }


class CheckpointLoadedPayload(msgspec.Struct, frozen=True, gc=False):
    """A run continues from a checkpoint."""

    path: str
    start_episode: Whole
    source: str | None = None
    avg_accuracy: float | None = None


class TrendDetectedPayload(msgspec.Struct, frozen=True, gc=False):
    """The rolling accuracy (percent) is on a plateau, falls or rises."""

    batch_idx: Whole
    episodes_completed: Whole
    rolling_delta: float
    rolling_avg_accuracy: float
    prev_rolling_avg_accuracy: float
    unexported: ClassVar[Unexported] = {
        POSITION: "batch_idx episodes_completed",
        SAME + "esper_tolaria_rolling_accuracy_ratio at the time": (
            "rolling_avg_accuracy prev_rolling_avg_accuracy"
        ),
    }


class AnomalyDetectedPayload(msgspec.Struct, frozen=True, gc=False):
    """Something in a policy update was not as it should be."""

    anomaly_type: str
    episode: Whole
    batch: Whole
    inner_epoch: Whole
    total_episodes: Whole
    detail: Text | None = None
    gradient_stats: tuple[dict[str, Any], ...] | None = None
    stability: dict[str, Any] | None = None
    ratio_diagnostic: dict[str, Any] | None = None
    action_heads: tuple[str, ...] | None = None
    unexported: ClassVar[Unexported] = {
        POSITION: "episode batch inner_epoch total_episodes",
    }


class PerformanceDegradationPayload(msgspec.Struct, frozen=True, gc=False):
    """An environment fell below its rolling accuracy (percent)."""

    env_id: EnvId
    current_acc: float
    rolling_avg_acc: float
    drop_percent: float
    threshold_percent: float
    episode_idx: Whole | None = None
    training_progress: float | None = None
    unexported: ClassVar[Unexported] = {
        POSITION: "env_id episode_idx",
        SAME + "esper_run_progress_ratio": "training_progress",
    }


class RewardHackingSuspectedPayload(msgspec.Struct, frozen=True, gc=False):
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


class EpisodeOutcomePayload(msgspec.Struct, frozen=True, gc=False):
    """One environment's episode ended. Accuracy is percent."""

    env_id: EnvId
    episode_idx: Whole
    final_accuracy: float
    param_ratio: float
    num_fossilized: Whole
    num_contributing_fossilized: Whole
    episode_reward: float
    stability_score: float
    reward_mode: str
    episode_length: Whole | None = None
    outcome_type: str | None = None
    germinate_count: Whole | None = None
    prune_count: Whole | None = None
    fossilize_count: Whole | None = None
    unexported: ClassVar[Unexported] = {
        POSITION: "episode_idx",
        LABEL: "env_id",
        STATE + "esper_simic_steps_per_germination, …_prune, …_fossilization": (
            "germinate_count prune_count fossilize_count"
        ),
    }


def _anomaly(name: str, *, reports_faults: bool = False) -> EventType:
    return EventType(
        name, AnomalyDetectedPayload, "apply_run.apply_anomaly", reports_faults=reports_faults
    )


def _trend(name: str) -> EventType:
    return EventType(name, TrendDetectedPayload, "apply_run.apply_trend", latest="trend")


EVENTS = (
    EventType(
        "TRAINING_STARTED",
        TrainingStartedPayload,
        "apply_run.apply_training_started",
        latest="started",
        begins_run=True,
    ),
    EventType(
        "CHECKPOINT_LOADED",
        CheckpointLoadedPayload,
        "apply_run.apply_checkpoint_loaded",
        latest="checkpoint",
        payload_optional=True,
        resumes_run=True,
    ),
    _trend("PLATEAU_DETECTED"),
    _trend("DEGRADATION_DETECTED"),
    _trend("IMPROVEMENT_DETECTED"),
    _anomaly("GRADIENT_ANOMALY"),
    _anomaly("GRADIENT_PATHOLOGY_DETECTED"),
    _anomaly("RATIO_EXPLOSION_DETECTED"),
    _anomaly("RATIO_COLLAPSE_DETECTED"),
    _anomaly("VALUE_COLLAPSE_DETECTED"),
    _anomaly("NUMERICAL_INSTABILITY_DETECTED", reports_faults=True),
    EventType(
        "PERFORMANCE_DEGRADATION",
        PerformanceDegradationPayload,
        "apply_run.apply_performance_degradation",
        latest="degradation",
    ),
    EventType(
        "REWARD_HACKING_SUSPECTED",
        RewardHackingSuspectedPayload,
        "apply_run.apply_reward_hacking",
        latest="hacking",
        group_unreliable=True,
    ),
    EventType("EPISODE_OUTCOME", EpisodeOutcomePayload, "apply_run.apply_episode_outcome"),
)
