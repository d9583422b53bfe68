"""Who contributed what: counterfactual matrices and Shapley values (Sanctum schema)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import ClassVar

from esper_exporter.contract.unexported import POSITION, Unexported


@dataclass
class CounterfactualConfig:
    """The accuracy (percent) with a given choice of seeds switched on."""

    seed_mask: tuple[bool, ...]
    accuracy: float = 0.0


@dataclass
class CounterfactualSnapshot:
    """Accuracies of one environment with its seeds switched on and off."""

    slot_ids: tuple[str, ...] = ()
    configs: list[CounterfactualConfig] = field(default_factory=list)
    strategy: str = "unavailable"
    compute_time_ms: float = 0.0
    unexported: ClassVar[Unexported] = {
        "a matrix of up to 2^slots rows; esper_simic_counterfactual_* sum it up": "configs",
    }

    @property
    def baseline_accuracy(self) -> float:
        """Accuracy with all seeds off, 0.0 if it was not evaluated."""
        return next((c.accuracy for c in self.configs if not any(c.seed_mask)), 0.0)

    @property
    def combined_accuracy(self) -> float:
        """Accuracy with all seeds on, 0.0 if it was not evaluated."""
        return next((c.accuracy for c in self.configs if all(c.seed_mask)), 0.0)

    def get_accuracy(self, mask: tuple[bool, ...]) -> float | None:
        """Accuracy with exactly these seeds on, None if it was not evaluated."""
        return next((c.accuracy for c in self.configs if c.seed_mask == mask), None)

    def _over_baseline(self, *chosen: int) -> float | None:
        mask = tuple(place in chosen for place in range(len(self.slot_ids)))
        accuracy = self.get_accuracy(mask)
        return None if accuracy is None else accuracy - self.baseline_accuracy

    def individual_contributions(self) -> dict[str, float]:
        """What each seed adds to the baseline alone, where that was evaluated."""
        return {
            slot_id: gain
            for place, slot_id in enumerate(self.slot_ids)
            if (gain := self._over_baseline(place)) is not None
        }

    def pair_contributions(self) -> dict[tuple[str, str], float]:
        """What each pair of seeds adds to the baseline, where that was evaluated."""
        return {
            (self.slot_ids[one], self.slot_ids[other]): gain
            for one, other in combinations(range(len(self.slot_ids)), 2)
            if (gain := self._over_baseline(one, other)) is not None
        }

    def total_synergy(self) -> float:
        """What all seeds give together beyond the baseline and what each gives alone."""
        alone = self.baseline_accuracy + sum(self.individual_contributions().values())
        return self.combined_accuracy - alone


@dataclass
class ShapleyEstimate:
    """A slot's mean marginal contribution (percent points), its uncertainty and sample size."""

    mean: float | None = 0.0
    std: float | None = 0.0
    n_samples: int | None = 0


@dataclass
class ShapleySnapshot:
    """Shapley values of one environment's slots; ``epoch`` is the batch they were computed in."""

    slot_ids: tuple[str, ...] = ()
    values: dict[str, ShapleyEstimate] = field(default_factory=dict)
    epoch: int = 0
    timestamp: datetime | None = None
    unexported: ClassVar[Unexported] = {POSITION: "epoch"}

    def get_mean(self, slot_id: str) -> float:
        """A slot's mean contribution, 0.0 if unknown."""
        found = self.values.get(slot_id)
        return (found.mean or 0.0) if found is not None else 0.0

    def get_significance(self, slot_id: str, z: float = 1.96) -> bool:
        """Whether a slot's contribution differs from 0 by more than ``z`` deviations."""
        found = self.values.get(slot_id)
        if found is None:
            return False
        mean, std = found.mean or 0.0, found.std or 0.0
        return abs(mean) > z * std if std > 0 else mean != 0

    def ranked_slots(self) -> list[tuple[str, float]]:
        """Slots and their means, largest first."""
        ranking = [(slot_id, reported.mean or 0.0) for slot_id, reported in self.values.items()]
        return sorted(ranking, key=lambda entry: entry[1], reverse=True)
