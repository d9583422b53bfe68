"""The parts of a reward (Sanctum schema: RewardComponents)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from esper_exporter.contract.unexported import LABEL, Unexported


@dataclass
class RewardComponents:
    """One step's reward, taken apart. Accuracies are in percent, costs are negative.

    ``escrow_*`` belong to the escrow reward mode; ``scaffold_*``, ``val_acc`` and ``last_action``
    are context, not parts of the sum.
    """

    total: float | None = 0.0
    base_acc_delta: float | None = 0.0
    bounded_attribution: float | None = 0.0
    seed_contribution: float | None = 0.0
    escrow_credit_prev: float | None = 0.0
    escrow_credit_target: float | None = 0.0
    escrow_delta: float | None = 0.0
    escrow_credit_next: float | None = 0.0
    escrow_forfeit: float | None = 0.0
    compute_rent: float | None = 0.0
    alpha_shock: float | None = 0.0
    ratio_penalty: float | None = 0.0
    stage_bonus: float | None = 0.0
    fossilize_terminal_bonus: float | None = 0.0
    blending_warning: float | None = 0.0
    holding_warning: float | None = 0.0
    hindsight_credit: float | None = 0.0
    scaffold_count: int | None = 0
    avg_scaffold_delay: float | None = 0.0
    env_id: int | None = 0
    val_acc: float | None = 0.0
    stable_val_acc: float | None = None
    last_action: str = ""
    unexported: ClassVar[Unexported] = {LABEL: "env_id"}
