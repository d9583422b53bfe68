"""Seeds in their slots, and the events of their lives (Sanctum schema)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from esper_exporter.contract.unexported import COUNTED, IDENTITY, Unexported
from esper_exporter.state.unreported import unreported


@dataclass(slots=True)
class SeedState:
    """One slot's seed.

    ``alpha`` is 0 to 1; accuracies, improvement and counterfactual are percent points;
    ``blend_tempo_epochs`` is 3 (fast), 5 (standard) or 8 (slow).
    """

    slot_id: str
    stage: str = "DORMANT"
    blueprint_id: str | None = None
    alpha: float | None = 0.0
    accuracy_delta: float | None = 0.0
    seed_params: int | None = 0
    grad_ratio: float | None = 0.0
    has_vanishing: bool | None = False
    has_exploding: bool | None = False
    epochs_in_stage: int | None = 0
    improvement: float | None = 0.0
    auto_pruned: bool | None = False
    epochs_total: int | None = 0
    counterfactual: float | None = 0.0
    blend_tempo_epochs: int | None = 5
    alpha_curve: str = "LINEAR"
    contribution_velocity: float | None = 0.0
    interaction_sum: float | None = 0.0
    boost_received: float | None = 0.0
    upstream_alpha_sum: float | None = 0.0
    downstream_alpha_sum: float | None = 0.0


def new_seed(slot_id: str) -> SeedState:
    """A slot's seed of which nothing was reported yet."""
    return unreported(SeedState, slot_id=slot_id, alpha_curve="")


@dataclass(slots=True)
class SeedLifecycleEvent:
    """One transition of a seed, with the ids that tie it to the morphology log."""

    epoch: int
    action: str
    from_stage: str
    to_stage: str
    blueprint_id: str
    slot_id: str
    alpha: float | None = None
    accuracy_delta: float | None = None
    morphology_proposal_id: str | None = None
    morphology_verdict_id: str | None = None
    morphology_mutation_id: str | None = None
    rng_stream: str | None = None
    rng_seed: int | None = None
    unexported: ClassVar[Unexported] = {
        COUNTED + "esper_kasmina_transitions_total, …_germinations_total, …_prunes_total": (
            "epoch alpha accuracy_delta"
        ),
        IDENTITY: "rng_seed",
    }
