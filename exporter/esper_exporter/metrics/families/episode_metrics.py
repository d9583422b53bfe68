"""What is computed over a run's episodes and seeds: rates, shares, lengths, trends."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.families.run_metrics import once_started, snapshot_field
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge, states

TRENDS = ("rising", "stable", "falling")
_NEED_OUTCOME = frozenset({"timeout_rate", "success_rate"})
_NEED_COUNT = {
    "steps_per_germinate": "germinations",
    "steps_per_prune": "prunes",
    "steps_per_fossilize": "fossilizations",
}
COMPLETION_TRENDS = ("improving", "stable", "declining")


def _of_seeds(name: str, path: str, help: str) -> Metric:
    """A value of all seeds, once any was reported."""
    read = once_started(path)

    def once_seeded(roots: Any) -> Any:
        return read(roots) if roots["run"].has_seeds() else None

    return gauge("run", name, path, help, read=once_seeded)


def _mean_stage_epochs(roots: Any) -> Any:
    snapshot = roots["snapshot"]
    known = roots["run"].given or any(
        seed.epochs_in_stage is not None and seed.stage != "DORMANT"
        for env in snapshot.envs.values()
        for slot_id, seed in env.seeds.items()
        if slot_id in snapshot.slot_ids
    )
    return snapshot.avg_epochs_in_stage if known else None


def _episodes(name: str, field: str, help: str, **options: Any) -> Metric:
    """Episode statistics; absent until an episode has ended."""

    def read(roots: Any) -> Any:
        if not roots["run"].episode_ended or not roots["snapshot"].current_episode:
            return None
        if field in _NEED_OUTCOME and not (roots["run"].outcome_reported or roots["run"].given):
            return None
        needed = _NEED_COUNT.get(field)
        if needed and getattr(roots["run"].episodes, needed) is None and not roots["run"].given:
            return None
        return getattr(roots["snapshot"].episode_stats, field)

    return gauge("run", name, f"episode_stats.{field}", help, read=read, **options)


def _lifecycle(name: str, field: str, help: str, **options: Any) -> Metric:
    """Life-cycle statistics; a mean or share of nothing is absent."""

    def read(roots: Any) -> Any:
        snapshot = roots["snapshot"]
        needs = {
            "avg_lifespan_epochs": snapshot.seed_lifecycle.avg_lifespan_epochs,
            "blend_success_rate": snapshot.cumulative_fossilized + snapshot.cumulative_pruned,
        }
        if (field in needs and not needs[field]) or not roots["run"].has_seeds():
            return None
        return getattr(snapshot.seed_lifecycle, field)

    return gauge("run", name, f"seed_lifecycle.{field}", help, read=read, **options)


def _running_actions(roots: Any, op: str | None = None) -> Any:
    """Actions of the running episode, of one operation or of all; None before the first."""
    envs = roots["snapshot"].envs.values()
    total = sum(env.total_actions for env in envs)
    if op is None or not total:
        return total or None
    return sum(env.action_counts.get(op, 0) for env in envs)


def _trend(kind: str) -> Metric:
    field = f"{kind}_trend"
    return states(
        "run",
        f"esper_kasmina_{kind}_trend",
        "trend",
        TRENDS,
        f"derived: seed_lifecycle.{field}",
        f"Trend of the {kind} rate: 1 for the current one.",
        lambda roots: (
            getattr(roots["snapshot"].seed_lifecycle, field)
            if roots["run"].batch_ended and roots["run"].has_seeds()
            else None
        ),
    )


METRICS: tuple[Metric, ...] = (
    gauge(
        "run",
        "esper_tamiyo_running_episode_actions",
        "derived: sum of the environments' actions in the running episode",
        "Actions of the running episode, all environments; absent before the first.",
        read=_running_actions,
    ),
    gauge(
        "run",
        "esper_tamiyo_wait_ratio",
        "derived: share of WAIT in the environments' actions of the running episode",
        "Share of WAIT among the running episode's actions; above 0.7 the policy avoids risk.",
        read=lambda roots: (
            _running_actions(roots, "WAIT") / _running_actions(roots)
            if _running_actions(roots)
            else None
        ),
    ),
    snapshot_field("esper_kasmina_configured_slots", "total_slots", "Slots of all environments."),
    _of_seeds("esper_kasmina_active_slots", "active_slots", "Slots that hold a seed."),
    gauge(
        "run",
        "esper_kasmina_mean_stage_epochs",
        "avg_epochs_in_stage",
        "Mean epochs that seeds have been in their stage; absent while there is none.",
        read=_mean_stage_epochs,
    ),
    _lifecycle(
        "esper_kasmina_germinations_per_episode", "germination_rate", "Germinations an episode."
    ),
    _lifecycle("esper_kasmina_prunes_per_episode", "prune_rate", "Prunes an episode."),
    _lifecycle(
        "esper_kasmina_fossilizations_per_episode", "fossilize_rate", "Fossilisations an episode."
    ),
    _lifecycle(
        "esper_kasmina_blend_success_ratio",
        "blend_success_rate",
        "Share of ended seeds that were fossilised.",
    ),
    _lifecycle(
        "esper_kasmina_mean_lifespan_epochs", "avg_lifespan_epochs", "Mean life of ended seeds."
    ),
    _trend("germination"),
    _trend("prune"),
    _trend("fossilize"),
    _episodes("esper_simic_episode_steps_mean", "length_mean", "Mean length of episodes."),
    _episodes("esper_simic_episode_steps_std", "length_std", "Spread of the episodes' lengths."),
    _episodes("esper_simic_episode_steps_min", "length_min", "Shortest episode."),
    _episodes("esper_simic_episode_steps_max", "length_max", "Longest episode."),
    _episodes(
        "esper_simic_episode_timeout_ratio",
        "timeout_rate",
        "Timeouts over episodes as the trainer counts episodes; it can exceed 1.",
    ),
    _episodes(
        "esper_simic_episode_success_ratio",
        "success_rate",
        "Successes over episodes as the trainer counts episodes.",
    ),
    _episodes(
        "esper_simic_steps_per_germination",
        "steps_per_germinate",
        "Mean steps between germinations.",
    ),
    _episodes("esper_simic_steps_per_prune", "steps_per_prune", "Mean steps between prunes."),
    _episodes(
        "esper_simic_steps_per_fossilization",
        "steps_per_fossilize",
        "Mean steps between fossilizations.",
    ),
    gauge(
        "run",
        "esper_simic_action_entropy_ratio",
        "episode_stats.action_entropy",
        "Entropy of the finished episodes' action mix, 0 (one action) to 1 (all alike).",
        read=lambda roots: (
            roots["snapshot"].episode_stats.action_entropy
            if roots["snapshot"].tamiyo.cumulative_total_actions
            else None
        ),
    ),
    gauge(
        "run",
        "esper_simic_seed_yield_ratio",
        "episode_stats.yield_rate",
        "Fossilisations over germinations.",
        read=lambda roots: (
            roots["snapshot"].episode_stats.yield_rate
            if roots["snapshot"].cumulative_germinated
            else None
        ),
    ),
    _of_seeds(
        "esper_simic_slot_utilization_ratio",
        "episode_stats.slot_utilization",
        "Share of slots that hold a seed.",
    ),
    states(
        "run",
        "esper_simic_completion_trend",
        "trend",
        COMPLETION_TRENDS,
        "derived: episode_stats.completion_trend",
        "Trend of episode successes: 1 for the current one.",
        lambda roots: (
            roots["snapshot"].episode_stats.completion_trend if roots["run"].episode_ended else None
        ),
    ),
)
