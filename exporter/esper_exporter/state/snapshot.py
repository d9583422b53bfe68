"""The whole of what is known of a run (Sanctum schema: SanctumSnapshot)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from esper_exporter.contract.unexported import (
    COUNTED,
    HISTORY,
    PEAK,
    SAME,
    TUI,
    WALL_CLOCK,
    Unexported,
)
from esper_exporter.health import STALE_SECONDS
from esper_exporter.state.attribution import CounterfactualSnapshot, ShapleySnapshot
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import (
    SeedState,
)
from esper_exporter.state.policy import TamiyoState
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.statistics import EpisodeStats, ObservationStats, SeedLifecycleStats
from esper_exporter.state.vitals import SystemVitals


@dataclass
class RunConfig:
    """Hyperparameters as TRAINING_STARTED reported them."""

    seed: int | None = None
    n_episodes: int | None = 0
    lr: float | None = 0.0
    clip_ratio: float = 0.2
    entropy_coef: float | None = 0.01
    param_budget: int | None = 0
    resume_path: str = ""
    entropy_anneal: dict[str, float] = field(default_factory=dict)
    unexported: ClassVar[Unexported] = {
        "a label of esper_run_info": "seed",
        "esper_run_configured_episodes is taken from the event": "n_episodes",
        "a schedule; esper_tamiyo_entropy_coefficient is its current value": "entropy_anneal",
    }


@dataclass
class BestRunRecord:
    """One of the run's best episodes: how it was at its peak, and at its end.

    Accuracies are in percent; ``end_*`` is the end, the rest of the parts the peak.
    """

    env_id: int
    episode: int
    peak_accuracy: float
    final_accuracy: float
    epoch: int = 0
    seeds: dict[str, SeedState] = field(default_factory=dict)
    slot_ids: list[str] = field(default_factory=list)
    growth_ratio: float | None = 1.0
    cumulative_reward: float | None = 0.0
    peak_cumulative_reward: float | None = 0.0
    reward_components: RewardComponents | None = None
    counterfactual_matrix: CounterfactualSnapshot | None = None
    shapley_snapshot: ShapleySnapshot | None = None
    action_history: list[str] = field(default_factory=list)
    reward_history: list[float] = field(default_factory=list)
    accuracy_history: list[float] = field(default_factory=list)
    host_loss: float = 0.0
    host_params: int = 0
    fossilized_count: int = 0
    pruned_count: int = 0
    reward_mode: str | None = None
    blueprint_spawns: dict[str, int] = field(default_factory=dict)
    blueprint_fossilized: dict[str, int] = field(default_factory=dict)
    blueprint_prunes: dict[str, int] = field(default_factory=dict)
    unexported: ClassVar[Unexported] = {
        PEAK: "seeds reward_components counterfactual_matrix shapley_snapshot",
        HISTORY: "reward_history accuracy_history",
        SAME + "esper_tolaria_env_host_params": "host_params",
        "a detail of one episode; the counters by blueprint hold all of them": (
            "fossilized_count pruned_count blueprint_spawns blueprint_fossilized blueprint_prunes"
        ),
    }


@dataclass
class EventLogEntry:
    """One line of the event log."""

    timestamp: str
    event_type: str
    env_id: int | None
    message: str
    episode: int = 0
    unexported: ClassVar[Unexported] = {TUI: "env_id episode"}


@dataclass
class SanctumSnapshot:
    """A run at one moment. Accuracies are in percent, times aware datetimes or seconds."""

    envs: dict[int, EnvState] = field(default_factory=dict)
    tamiyo: TamiyoState = field(default_factory=TamiyoState)
    vitals: SystemVitals = field(default_factory=SystemVitals)
    rewards: RewardComponents = field(default_factory=RewardComponents)
    slot_ids: list[str] = field(default_factory=list)
    current_episode: int = 0
    current_batch: int = 0
    max_batches: int = 0
    current_epoch: int = 0
    max_epochs: int = 0
    run_id: str = ""
    task_name: str = ""
    reward_mode: str | None = None
    run_config: RunConfig = field(default_factory=RunConfig)
    start_time: datetime | None = None
    runtime_seconds: float = 0.0
    staleness_seconds: float = math.inf
    total_events_received: int = 0
    aggregate_mean_accuracy: float = 0.0
    aggregate_mean_reward: float = 0.0
    batch_avg_reward: float = 0.0
    batch_total_episodes: int = 0
    event_log: list[EventLogEntry] = field(default_factory=list)
    best_runs: list[BestRunRecord] = field(default_factory=list)
    cumulative_germinated: int = 0
    cumulative_fossilized: int = 0
    cumulative_pruned: int = 0
    cumulative_blueprint_spawns: dict[str, int] = field(default_factory=dict)
    cumulative_blueprint_fossilized: dict[str, int] = field(default_factory=dict)
    cumulative_blueprint_prunes: dict[str, int] = field(default_factory=dict)
    slot_stage_counts: dict[str, int] = field(default_factory=dict)
    total_slots: int = 0
    active_slots: int = 0
    avg_epochs_in_stage: float = 0.0
    seed_lifecycle: SeedLifecycleStats = field(default_factory=SeedLifecycleStats)
    observation_stats: ObservationStats = field(default_factory=ObservationStats)
    episode_stats: EpisodeStats = field(default_factory=EpisodeStats)
    focused_env_id: int = 0
    unexported: ClassVar[Unexported] = {
        "a copy of one environment's envs[{env_id}].reward_components": "rewards",
        WALL_CLOCK + "time() - esper_run_start_timestamp_seconds": "runtime_seconds",
        WALL_CLOCK + "time() - esper_run_last_event_timestamp_seconds": "staleness_seconds",
        COUNTED + "esper_run_events_total": "total_events_received",
        TUI: "focused_env_id",
        COUNTED + "esper_kasmina_germinations_total": (
            "cumulative_germinated cumulative_blueprint_spawns"
        ),
        COUNTED + "esper_kasmina_fossilizations_total": (
            "cumulative_fossilized cumulative_blueprint_fossilized"
        ),
        COUNTED + "esper_kasmina_prunes_total": "cumulative_pruned cumulative_blueprint_prunes",
    }

    @property
    def is_stale(self) -> bool:
        """Whether the last event is more than five seconds old."""
        return self.staleness_seconds > STALE_SECONDS
