"""A slot and the seed in it: the life cycle, its gates, and how alpha moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

TEMPO_EPOCHS = {"FAST": 1, "STANDARD": 2, "SLOW": 4}
"""Epochs that a seed trains in isolation before blending may begin."""
SPEED_EPOCHS = {"INSTANT": 1, "FAST": 2, "MEDIUM": 3, "SLOW": 5}
"""Epochs that alpha needs to reach its target."""
TARGETS = {"HALF": 0.5, "SEVENTY": 0.7, "FULL": 1.0}
EMBARGO_EPOCHS = 1
HOLDING_EPOCHS = 1
LIVE = frozenset({"GERMINATED", "TRAINING", "BLENDING", "HOLDING"})
"""Stages in which a seed can be pruned."""
HEARD = frozenset({"BLENDING", "HOLDING", "FOSSILIZED"})
"""Stages in which a seed changes the host's output."""


def _sigmoid(steepness: float) -> Callable[[float], float]:
    """A logistic curve from 0 to 1 over the unit interval, exact at both ends."""

    def raw(t: float) -> float:
        return 1.0 / (1.0 + math.exp(-steepness * (t - 0.5)))

    low, high = raw(0.0), raw(1.0)
    return lambda t: (raw(t) - low) / (high - low)


CURVES: dict[str, Callable[[float], float]] = {
    "LINEAR": lambda t: t,
    "COSINE": lambda t: 0.5 - 0.5 * math.cos(math.pi * t),
    "SIGMOID_GENTLE": _sigmoid(6.0),
    "SIGMOID": _sigmoid(12.0),
    "SIGMOID_SHARP": _sigmoid(24.0),
}


@dataclass(slots=True)
class Ramp:
    """Alpha's transition: start, target, number of epochs, curve."""

    start: float = 0.0
    target: float = 1.0
    epochs: int = 3
    curve: str = "LINEAR"
    elapsed: int = 0

    def step(self) -> float:
        """Advance one epoch; returns alpha."""
        self.elapsed = min(self.elapsed + 1, self.epochs)
        share = CURVES[self.curve](self.elapsed / self.epochs)
        return self.start + (self.target - self.start) * share

    @property
    def done(self) -> bool:
        return self.elapsed >= self.epochs


@dataclass(slots=True)
class Seed:
    """One seed; accuracies and contributions are percent (points)."""

    seed_id: str
    blueprint: str
    style: str
    tempo: str
    target: float
    module: nn.Module
    params: int
    accuracy_before: float
    ramp: Ramp = field(default_factory=Ramp)
    alpha: float = 0.0
    epochs_total: int = 0
    grad_ratio: float | None = None
    contribution: float | None = None
    """Validation accuracy with it less that without it, measured in its host's last epoch."""
    previous_contribution: float | None = None
    fading: bool = False


@dataclass(slots=True)
class Slot:
    """A place in a host for one seed at a time."""

    slot_id: str
    stage: str = "DORMANT"
    epochs_in_stage: int = 0
    seed: Seed | None = None

    def enter(self, stage: str) -> str:
        """Enter a stage; returns the previous one."""
        before, self.stage, self.epochs_in_stage = self.stage, stage, 0
        return before

    @property
    def contributing(self) -> bool:
        return self.seed is not None and self.stage in HEARD


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate's decision between two stages, in the contract's terms."""

    name: str
    target_stage: str
    passed: tuple[str, ...]
    failed: tuple[str, ...]


def gate(slot: Slot) -> Gate:
    """Try the gate ahead of a live seed."""
    seed = slot.seed
    assert seed is not None
    if slot.stage == "GERMINATED":
        checks = {"seed_present": True}
        name, target = "G1", "TRAINING"
    elif slot.stage == "TRAINING":
        checks = {
            "trained_long_enough": slot.epochs_in_stage >= TEMPO_EPOCHS[seed.tempo],
            "no_exploding_gradients": not exploding(seed),
        }
        name, target = "G2", "BLENDING"
    elif slot.stage == "BLENDING":
        checks = {"alpha_at_target": seed.ramp.done, "not_fading": not seed.fading}
        name, target = "G3", "HOLDING"
    else:
        checks = {
            "held_long_enough": slot.epochs_in_stage >= HOLDING_EPOCHS,
            "contribution_measured": seed.contribution is not None,
            "not_fading": not seed.fading,
        }
        name, target = "G5", "FOSSILIZED"
    return Gate(
        name,
        target,
        tuple(check for check, good in checks.items() if good),
        tuple(check for check, good in checks.items() if not good),
    )


def vanishing(seed: Seed) -> bool:
    """Its gradients are tiny compared with the host's."""
    return seed.grad_ratio is not None and seed.grad_ratio < 0.01


def exploding(seed: Seed) -> bool:
    """Its gradients dwarf the host's."""
    return seed.grad_ratio is not None and seed.grad_ratio > 50.0
