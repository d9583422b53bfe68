"""Kasmina: the seeds in their slots, and what becomes of them."""

from __future__ import annotations

from typing import Any

from esper_exporter.contract.vocabulary import BLUEPRINTS, OPS, STAGES
from esper_exporter.metrics.metric import RUN_LABELS, Metric
from esper_exporter.metrics.metric_builders import counter, every, gauge, histogram, info, states

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
        "Life-cycle stage of a slot's seed: 1 for the one that holds.",
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
    _seed(
        "esper_kasmina_seed_synergy",
        "interaction_sum",
        "Synergy of a seed with all others.",
    ),
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

_BLUEPRINTS = tuple((blueprint,) for blueprint in BLUEPRINTS)

COUNTERS: tuple[Metric, ...] = (
    counter(
        "esper_kasmina_germinations_total",
        "derived: number of SEED_GERMINATED events by blueprint_id",
        "Seeds germinated by blueprint.",
        labels=("blueprint",),
        initial=_BLUEPRINTS,
    ),
    counter(
        "esper_kasmina_fossilizations_total",
        "derived: number of SEED_FOSSILIZED events by blueprint_id",
        "Seeds fossilised by blueprint.",
        labels=("blueprint",),
        initial=_BLUEPRINTS,
    ),
    counter(
        "esper_kasmina_prunes_total",
        "derived: number of SEED_PRUNED events by blueprint_id",
        "Seeds pruned by blueprint.",
        labels=("blueprint",),
        initial=_BLUEPRINTS,
    ),
    counter(
        "esper_kasmina_prunes_by_reason_total",
        "derived: number of SEED_PRUNED events by reason and initiator",
        "Seeds pruned by reason and by who pruned them (policy, auto …).",
        labels=("reason", "initiator"),
    ),
    counter(
        "esper_kasmina_fossilized_params_total",
        "derived: sum of params_added of the SEED_FOSSILIZED events",
        "Parameters added for good, all environments and episodes.",
    ),
    counter(
        "esper_kasmina_transitions_total",
        "derived: number of SEED_STAGE_CHANGED events by stages, and of SEED_GERMINATED",
        "Life-cycle transitions of seeds.",
        labels=("from_stage", "to_stage"),
        initial=(
            ("DORMANT", "GERMINATED"),
            ("GERMINATED", "TRAINING"),
            ("TRAINING", "BLENDING"),
            ("BLENDING", "HOLDING"),
            ("HOLDING", "FOSSILIZED"),
            ("TRAINING", "PRUNED"),
            ("BLENDING", "PRUNED"),
            ("HOLDING", "PRUNED"),
            ("PRUNED", "EMBARGOED"),
            ("EMBARGOED", "RESETTING"),
            ("RESETTING", "DORMANT"),
        ),
    ),
    counter(
        "esper_kasmina_gate_evaluations_total",
        "derived: number of SEED_GATE_EVALUATED events by gate and result",
        "Gate evaluations by gate and result.",
        labels=("gate", "result"),
        initial=every(("G0", "G1", "G2", "G3", "G5"), ("passed", "failed")),
    ),
    counter(
        "esper_kasmina_morphology_events_total",
        "derived: number of MORPHOLOGY_CAUSAL_LOG events by phase, operation and verdict",
        "Steps of changes to a network's shape, by phase, operation and the governor's verdict.",
        labels=("phase", "operation", "verdict"),
        initial=every(("verdict",), OPS, ("approved", "refused")),
    ),
    counter(
        "esper_kasmina_topology_manifests_total",
        "derived: number of TOPOLOGY_MANIFEST_RECORDED events by role and match",
        "Topology manifests recorded, by role and whether a replay matched.",
        labels=("role", "match"),
    ),
    histogram(
        "esper_kasmina_seed_lifespan_epochs",
        "derived: epochs_total of every seed that was fossilised or pruned",
        "How long seeds lived.",
        (5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0),
    ),
    histogram(
        "esper_kasmina_fossilized_improvement_ratio",
        "derived: improvement of every SEED_FOSSILIZED, 0 to 1",
        "Accuracy gained by seeds that were fossilised.",
        (-0.1, -0.05, -0.02, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    ),
)
