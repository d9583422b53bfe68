"""One environment of a run (Sanctum schema: EnvState)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from esper_exporter.contract.unexported import COUNTED, HISTORY, LABEL, PEAK, Unexported
from esper_exporter.contract.vocabulary import OPS, normalize_action
from esper_exporter.health import (
    ENV_DEGRADED_DROP_PERCENT,
    ENV_EXCELLENT_ACCURACY_PERCENT,
    ENV_HYSTERESIS_EPOCHS,
    ENV_STALL_EPOCHS,
)
from esper_exporter.state.attribution import CounterfactualSnapshot, ShapleySnapshot
from esper_exporter.state.copier import twin
from esper_exporter.state.lifecycle import SeedLifecycleEvent, SeedState
from esper_exporter.state.rewards import RewardComponents

CONTRIBUTING_STAGES = frozenset({"FOSSILIZED", "HOLDING", "BLENDING"})


def _peak_copy(seed: SeedState) -> SeedState:
    """What is remembered of a seed at the peak: its state, not its fate."""
    return SeedState(
        slot_id=seed.slot_id,
        stage=seed.stage,
        blueprint_id=seed.blueprint_id,
        alpha=seed.alpha,
        accuracy_delta=seed.accuracy_delta,
        seed_params=seed.seed_params,
        grad_ratio=seed.grad_ratio,
        has_vanishing=seed.has_vanishing,
        has_exploding=seed.has_exploding,
        epochs_in_stage=seed.epochs_in_stage,
    )


@dataclass
class EnvState:
    """One environment: host, seeds, rewards and actions of the running episode.

    Accuracies are in percent. ``best_*`` is what was at the moment of the episode's best accuracy.
    """

    env_id: int
    current_epoch: int = 0
    host_accuracy: float | None = 0.0
    host_loss: float | None = 0.0
    host_params: int = 0
    seeds: dict[str, SeedState] = field(default_factory=dict)
    active_seed_count: int = 0
    fossilized_count: int = 0
    pruned_count: int = 0
    fossilized_params: int = 0
    blueprint_spawns: dict[str, int] = field(default_factory=dict)
    blueprint_prunes: dict[str, int] = field(default_factory=dict)
    blueprint_fossilized: dict[str, int] = field(default_factory=dict)
    reward_components: RewardComponents = field(default_factory=RewardComponents)
    counterfactual_matrix: CounterfactualSnapshot = field(default_factory=CounterfactualSnapshot)
    shapley_snapshot: ShapleySnapshot = field(default_factory=ShapleySnapshot)
    reward_history: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    accuracy_history: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    cumulative_reward: float = 0.0
    best_reward: float = -math.inf
    best_reward_epoch: int = 0
    best_accuracy: float = 0.0
    best_accuracy_epoch: int = 0
    best_accuracy_episode: int = 0
    peak_cumulative_reward: float = 0.0
    best_seeds: dict[str, SeedState] = field(default_factory=dict)
    best_reward_components: RewardComponents | None = None
    best_counterfactual_matrix: CounterfactualSnapshot | None = None
    best_shapley_snapshot: ShapleySnapshot | None = None
    best_action_history: list[str] = field(default_factory=list)
    best_blueprint_spawns: dict[str, int] = field(default_factory=dict)
    best_blueprint_fossilized: dict[str, int] = field(default_factory=dict)
    best_blueprint_prunes: dict[str, int] = field(default_factory=dict)
    lifecycle_events: list[SeedLifecycleEvent] = field(default_factory=list)
    action_history: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    action_counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OPS, 0))
    total_actions: int = 0
    last_action_success: bool = True
    gaming_trigger_count: int = 0
    total_reward_steps: int = 0
    status: str = "initializing"
    last_update: datetime | None = None
    epochs_since_improvement: int = 0
    stall_counter: int = 0
    degraded_counter: int = 0
    reward_mode: str | None = None
    rolled_back: bool = False
    rollback_reason: str = ""
    rollback_timestamp: datetime | None = None
    unexported: ClassVar[Unexported] = {
        LABEL: "env_id",
        HISTORY: "reward_history accuracy_history",
        COUNTED + "esper_tamiyo_actions_total; by operation for the running episode"
        " esper_tamiyo_episode_actions": "action_counts",
        "clears within one epoch and is missed by any scrape;"
        " esper_tolaria_rollbacks_total and"
        " esper_tolaria_env_last_rollback_timestamp_seconds stay": "rolled_back",
        PEAK: (
            "best_blueprint_spawns best_blueprint_fossilized best_blueprint_prunes best_seeds"
            " best_reward_components best_counterfactual_matrix best_shapley_snapshot"
        ),
    }

    @property
    def current_reward(self) -> float:
        """The newest reward, 0.0 if there is none."""
        return self.reward_history[-1] if self.reward_history else 0.0

    @property
    def mean_reward(self) -> float:
        """Mean of the last 50 rewards, 0.0 if there are none."""
        history = self.reward_history
        return sum(history) / len(history) if history else 0.0

    @property
    def gaming_rate(self) -> float:
        """Share of steps with an anti-gaming penalty, 0.0 if there are no steps."""
        steps = self.total_reward_steps
        return self.gaming_trigger_count / steps if steps else 0.0

    @property
    def growth_ratio(self) -> float:
        """Size with fossilised seeds over the host's own; 1.0 if that is unknown."""
        if self.host_params == 0:
            return 1.0
        return (self.host_params + self.fossilized_params) / self.host_params

    def add_reward(self, reward: float, epoch: int) -> None:
        """Take one step's reward in."""
        self.reward_history.append(reward)
        self.cumulative_reward += reward
        if reward > self.best_reward:
            self.best_reward = reward
            self.best_reward_epoch = epoch

    def add_accuracy(self, accuracy: float, epoch: int, episode: int = 0) -> None:
        """Take one epoch's accuracy (percent) in; at a new best, remember how things are."""
        before = self.accuracy_history[-1] if self.accuracy_history else 0.0
        self.accuracy_history.append(accuracy)
        self.host_accuracy = accuracy
        self.current_epoch = epoch
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best_accuracy_epoch = epoch
            self.best_accuracy_episode = episode
            self.epochs_since_improvement = 0
            self._remember_peak()
        else:
            self.epochs_since_improvement += 1
        self._update_status(before, accuracy)

    def _remember_peak(self) -> None:
        self.best_seeds = {
            slot_id: _peak_copy(seed)
            for slot_id, seed in self.seeds.items()
            if seed.stage in CONTRIBUTING_STAGES
        }
        self.best_reward_components = twin(self.reward_components)
        matrix = self.counterfactual_matrix
        self.best_counterfactual_matrix = None
        if matrix.slot_ids:
            self.best_counterfactual_matrix = twin(matrix)
            self.best_counterfactual_matrix.configs = list(matrix.configs)
        self.best_action_history = list(self.action_history)
        self.peak_cumulative_reward = self.cumulative_reward
        self.best_blueprint_spawns = dict(self.blueprint_spawns)
        self.best_blueprint_fossilized = dict(self.blueprint_fossilized)
        self.best_blueprint_prunes = dict(self.blueprint_prunes)

    def add_action(self, action_name: str) -> None:
        """Take one action in, by the operation it is a variant of (TELE-645)."""
        op = normalize_action(action_name)
        self.action_history.append(op)
        if op in self.action_counts:
            self.action_counts[op] += 1
            self.total_actions += 1

    def _update_status(self, before: float, now: float) -> None:
        """Bad news must hold for three epochs before it becomes the status, good news need not."""
        self.stall_counter = (
            self.stall_counter + 1 if self.epochs_since_improvement > ENV_STALL_EPOCHS else 0
        )
        if self.stall_counter >= ENV_HYSTERESIS_EPOCHS:
            self.status = "stalled"
        if now < before - ENV_DEGRADED_DROP_PERCENT:
            self.degraded_counter += 1
            if self.degraded_counter >= ENV_HYSTERESIS_EPOCHS:
                self.status = "degraded"
        elif now > before:
            self.degraded_counter = 0
        if self.epochs_since_improvement == 0:
            if now > ENV_EXCELLENT_ACCURACY_PERCENT:
                self.status = "excellent"
            elif self.current_epoch > 0:
                self.status = "healthy"
