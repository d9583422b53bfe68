"""One decision of the policy (Sanctum schema: DecisionSnapshot)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class DecisionSnapshot:
    """What the policy saw, chose and got for it.

    Confidences are probabilities. ``value_residual`` is the reward less the value estimate;
    ``td_advantage`` is known only once the environment's next decision has come. ``choices`` and
    ``confidences`` are by head. ``decision_entropy`` is in nats; None: not measured.
    """

    timestamp: datetime
    slot_states: dict[str, str]
    host_accuracy: float
    chosen_action: str
    choices: dict[str, str]
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
    confidences: dict[str, float] = field(default_factory=dict)
