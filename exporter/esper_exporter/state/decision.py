"""One decision of the policy (Sanctum schema: DecisionSnapshot)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass
class DecisionSnapshot:
    """What the policy saw, chose and got for it.

    Confidences are probabilities. ``value_residual`` is the reward less the value estimate;
    ``td_advantage`` is known only once the environment's next decision has come. Entropies of
    heads are shares of their maximum, ``decision_entropy`` is in nats; None: not measured.
    """

    timestamp: datetime
    slot_states: dict[str, str]
    host_accuracy: float
    chosen_action: str
    chosen_slot: str | None
    confidence: float | None
    expected_value: float | None
    actual_reward: float | None
    alternatives: list[tuple[str, float]]
    action_success: bool | None = None
    decision_id: str = ""
    env_id: int = 0
    episode: int = 0
    epoch: int = 0
    batch: int = 0
    value_residual: float | None = 0.0
    td_advantage: float | None = None
    decision_entropy: float | None = None
    chosen_blueprint: str | None = None
    chosen_tempo: str | None = None
    chosen_style: str | None = None
    chosen_curve: str | None = None
    chosen_alpha_target: str | None = None
    chosen_alpha_speed: str | None = None
    op_confidence: float = 0.0
    slot_confidence: float = 0.0
    blueprint_confidence: float = 0.0
    style_confidence: float = 0.0
    tempo_confidence: float = 0.0
    alpha_target_confidence: float = 0.0
    alpha_speed_confidence: float = 0.0
    curve_confidence: float = 0.0
    op_entropy: float | None = None
    slot_entropy: float | None = None
    blueprint_entropy: float | None = None
    style_entropy: float | None = None
    tempo_entropy: float | None = None
    alpha_target_entropy: float | None = None
    alpha_speed_entropy: float | None = None
    curve_entropy: float | None = None
