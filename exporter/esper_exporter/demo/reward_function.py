"""The reward of one step, split into the reported components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ACCURACY_WEIGHT = 0.05
"""Reward for one percent point of accuracy gained in the step."""
ATTRIBUTION_WEIGHT = 0.05
ATTRIBUTION_BOUND = 10.0
"""Upper bound of a seed's rewarded contribution per epoch, in percent points."""
RENT = 0.03
SHOCK = 0.2
STAGE_BONUS = 0.05
SHUT_GATE = 0.03
FOSSILIZE_BONUS = 0.3
ROLLBACK_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in a step. Accuracies and contributions are percent (points)."""

    op: str
    success: bool
    advanced: bool
    accuracy: float
    accuracy_before: float
    contributions: Sequence[float]
    growth: float
    alpha_shock: float
    fossilized_contribution: float | None
    fossilized: int
    contributing: int
    active: int
    rolled_back: bool
    epoch: int


def components(step: Step) -> dict[str, float | int | str | bool | None]:
    """The components by their names in the contract; ``total_reward`` is the sum of the rewards."""
    contribution = sum(step.contributions) if step.contributions else None
    bounded = sum(
        max(-ATTRIBUTION_BOUND, min(ATTRIBUTION_BOUND, each)) for each in step.contributions
    )
    parts = {
        "base_acc_delta": ACCURACY_WEIGHT * (step.accuracy - step.accuracy_before),
        "bounded_attribution": ATTRIBUTION_WEIGHT * bounded,
        "compute_rent": -RENT * math.log1p(step.growth),
        "alpha_shock": -SHOCK * step.alpha_shock,
        "stage_bonus": STAGE_BONUS if step.advanced else 0.0,
        "action_shaping": (0.0 if step.success else -SHUT_GATE)
        - (ROLLBACK_PENALTY if step.rolled_back else 0.0),
        "fossilize_terminal_bonus": 0.0
        if step.fossilized_contribution is None
        else FOSSILIZE_BONUS * max(-1.0, min(1.0, step.fossilized_contribution / 5.0)),
    }
    return {
        **parts,
        "total_reward": sum(parts.values()),
        "seed_contribution": contribution,
        "num_fossilized_seeds": step.fossilized,
        "num_contributing_fossilized": step.contributing,
        "n_active_seeds": step.active,
        "action_name": step.op,
        "action_success": step.success,
        "epoch": step.epoch,
        "val_acc": step.accuracy,
        "growth_ratio": step.growth,
    }
