"""Statistics over a run: seed life cycles, observations, episodes (Sanctum schema)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from esper_exporter.contract.unexported import COUNTED, SAME, WALL_CLOCK, Unexported


@dataclass
class SeedLifecycleStats:
    """Seed life cycles over the whole run. Rates are per episode, the success rate is 0 to 1;
    trends are ``rising``, ``stable`` or ``falling``."""

    prune_count: int = 0
    fossilize_count: int = 0
    total_slots: int = 0
    germination_rate: float = 0.0
    prune_rate: float = 0.0
    fossilize_rate: float = 0.0
    blend_success_rate: float = 0.0
    avg_lifespan_epochs: float = 0.0
    germination_trend: str = "stable"
    prune_trend: str = "stable"
    fossilize_trend: str = "stable"
    unexported: ClassVar[Unexported] = {
        COUNTED + "esper_kasmina_prunes_total": "prune_count",
        COUNTED + "esper_kasmina_fossilizations_total": "fossilize_count",
        SAME + "esper_kasmina_configured_slots": "total_slots",
    }


@dataclass
class ObservationStats:
    """Health of the policy's inputs. Despite their names the ``_pct`` fields are shares, 0 to 1."""

    slot_features_mean: float | None = 0.0
    slot_features_std: float | None = 0.0
    host_features_mean: float | None = 0.0
    host_features_std: float | None = 0.0
    context_features_mean: float | None = 0.0
    context_features_std: float | None = 0.0
    outlier_pct: float | None = 0.0
    near_clip_pct: float | None = 0.0
    clip_pct: float | None = 0.0
    nan_count: int | None = 0
    inf_count: int | None = 0
    nan_pct: float | None = 0.0
    inf_pct: float | None = 0.0
    normalization_drift: float | None = 0.0
    batch_size: int | None = 0


@dataclass
class EpisodeStats:
    """Episodes as such. Lengths are in steps, rates and shares 0 to 1 (``timeout_rate`` can exceed
    1: the real system counts episodes of one environment and timeouts of all); the completion
    trend is ``improving``, ``stable`` or ``declining``."""

    length_mean: float = 0.0
    length_std: float = 0.0
    length_min: int = 0
    length_max: int = 0
    total_episodes: int = 0
    episodes_per_second: float = 0.0
    timeout_rate: float = 0.0
    success_rate: float = 0.0
    steps_per_germinate: float = 0.0
    steps_per_prune: float = 0.0
    steps_per_fossilize: float = 0.0
    action_entropy: float = 0.0
    yield_rate: float = 0.0
    slot_utilization: float = 0.0
    completion_trend: str = "stable"
    unexported: ClassVar[Unexported] = {
        SAME + "esper_run_episode": "total_episodes",
        WALL_CLOCK + "esper_simic_episodes_per_second uses event times": "episodes_per_second",
    }
