"""Kasmina: the seeds in their slots, and what becomes of them."""

from __future__ import annotations

from typing import Any

from esper_exporter.contract.vocabulary import STAGES
from esper_exporter.metrics.metric import RUN_LABELS, Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram, info, states
from esper_exporter.state import counted

SEED = "envs[{env_id}].seeds[{slot_id}]."


def _seed(name: str, field: str, help: str, **options: Any) -> Metric:
    """A value that only a seed has; the publisher leaves it out for an empty slot."""
    return gauge("slot", name, SEED + field, help, **options)


SLOT_METRICS: tuple[Metric, ...] = (
    states(
        "slot",
        "esper_kasmina_slot_stage",
        "stage",
        tuple(STAGES),
        "derived: envs[{env_id}].seeds[{slot_id}].stage",
        "Life-cycle stage of a slot's seed: 1 for the current one.",
        lambda roots: roots["seed"].stage,
    ),
    _seed("esper_kasmina_seed_alpha_ratio", "alpha", "How far a seed is blended in, 0 to 1."),
    _seed(
        "esper_kasmina_seed_accuracy_delta_ratio",
        "accuracy_delta",
        "Accuracy gained with a seed, 0 to 1.",
        scale=0.01,
    ),
    _seed("esper_kasmina_seed_params", "seed_params", "Parameters of a seed."),
    _seed("esper_kasmina_seed_grad_ratio", "grad_ratio", "Gradient health of a seed, 0 to 1."),
    _seed("esper_kasmina_seed_vanishing", "has_vanishing", "1 if a seed's gradient vanishes."),
    _seed("esper_kasmina_seed_exploding", "has_exploding", "1 if a seed's gradient explodes."),
    _seed("esper_kasmina_seed_stage_epochs", "epochs_in_stage", "Epochs a seed is in its stage."),
    _seed(
        "esper_kasmina_seed_improvement_ratio",
        "improvement",
        "Accuracy gained by a seed when it was fossilised or pruned, 0 to 1.",
        scale=0.01,
    ),
    _seed("esper_kasmina_seed_auto_pruned", "auto_pruned", "1 if the system pruned the seed."),
    _seed("esper_kasmina_seed_epochs", "epochs_total", "Epochs a seed lived, once it ended."),
    _seed(
        "esper_kasmina_seed_counterfactual_ratio",
        "counterfactual",
        "Accuracy that a seed caused, 0 to 1, once it ended.",
        scale=0.01,
    ),
    _seed(
        "esper_kasmina_seed_blend_tempo_epochs",
        "blend_tempo_epochs",
        "Epochs that blending takes: 3 fast, 5 standard, 8 slow.",
    ),
    _seed(
        "esper_kasmina_seed_contribution_velocity",
        "contribution_velocity",
        "Smoothed change of a seed's contribution.",
    ),
    _seed("esper_kasmina_seed_synergy", "interaction_sum", "Synergy of a seed with all others."),
    _seed(
        "esper_kasmina_seed_boost_received",
        "boost_received",
        "Synergy of a seed with its strongest partner.",
    ),
    _seed(
        "esper_kasmina_seed_upstream_alpha",
        "upstream_alpha_sum",
        "Sum of the alphas of the slots before it.",
    ),
    _seed(
        "esper_kasmina_seed_downstream_alpha",
        "downstream_alpha_sum",
        "Sum of the alphas of the slots behind it.",
    ),
)

INFOS: tuple[Metric, ...] = (
    info(
        "esper_kasmina_seed_info",
        (*RUN_LABELS, "env_id", "slot_id", "blueprint", "alpha_curve"),
        "derived: blueprint_id and alpha_curve of envs[{env_id}].seeds[{slot_id}]",
        "Blueprint and alpha curve of the seed in a slot.",
    ),
)

BLUEPRINT_METRICS: tuple[Metric, ...] = tuple(
    gauge(
        "env_blueprint",
        f"esper_kasmina_env_blueprint_{part}",
        f"envs[{{env_id}}].{field}[{{blueprint}}]",
        text,
    )
    for part, field, text in (
        ("spawns", "blueprint_spawns", "Seeds germinated in the running episode by blueprint."),
        ("prunes", "blueprint_prunes", "Seeds pruned in the running episode by blueprint."),
        (
            "fossilized",
            "blueprint_fossilized",
            "Seeds fossilised in the running episode by blueprint.",
        ),
    )
)

STAGE_METRICS: tuple[Metric, ...] = (
    gauge(
        "stage",
        "esper_kasmina_slots",
        "slot_stage_counts[{stage}]",
        "Slots by stage, all environments; slots between two seeds count as DORMANT.",
    ),
)


COUNTERS: tuple[Metric, ...] = (
    counter(
        counted.GERMINATIONS,
        "derived: number of SEED_GERMINATED events by blueprint_id",
        "Seeds germinated by blueprint.",
    ),
    counter(
        counted.FOSSILIZATIONS,
        "derived: number of SEED_FOSSILIZED events by blueprint_id",
        "Seeds fossilised by blueprint.",
    ),
    counter(
        counted.PRUNES,
        "derived: number of SEED_PRUNED events by blueprint_id",
        "Seeds pruned by blueprint.",
    ),
    counter(
        counted.PRUNES_BY_REASON,
        "derived: number of SEED_PRUNED events by reason and initiator",
        "Seeds pruned by reason and by who pruned them (policy, auto …).",
    ),
    counter(
        counted.FOSSILIZED_PARAMS,
        "derived: sum of params_added of the SEED_FOSSILIZED events",
        "Parameters added for good, all environments and episodes.",
    ),
    counter(
        counted.TRANSITIONS,
        "derived: number of SEED_STAGE_CHANGED events by stages, and of SEED_GERMINATED",
        "Life-cycle transitions of seeds.",
    ),
    counter(
        counted.GATE_EVALUATIONS,
        "derived: number of SEED_GATE_EVALUATED events by gate and result",
        "Gate evaluations by gate and result.",
    ),
    counter(
        counted.MORPHOLOGY_EVENTS,
        "derived: number of MORPHOLOGY_CAUSAL_LOG events by phase, operation and verdict",
        "Steps of changes to a network's shape, by phase, operation and the governor's verdict.",
    ),
    counter(
        counted.TOPOLOGY_MANIFESTS,
        "derived: number of TOPOLOGY_MANIFEST_RECORDED events by role and match",
        "Topology manifests recorded, by role and whether a replay matched.",
    ),
    histogram(
        counted.SEED_LIFESPAN,
        "derived: epochs_total of every seed that was fossilised or pruned",
        "How long seeds lived.",
    ),
    histogram(
        counted.FOSSILIZED_IMPROVEMENT,
        "derived: improvement of every SEED_FOSSILIZED, 0 to 1",
        "Accuracy gained by seeds that were fossilised.",
    ),
)
