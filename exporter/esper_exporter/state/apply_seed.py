"""Seed life-cycle events into the state (Kasmina)."""

from __future__ import annotations

from typing import NamedTuple

from esper_exporter.contract.events import Event
from esper_exporter.contract.kasmina import (
    SeedFossilizedPayload,
    SeedGateEvaluatedPayload,
    SeedGerminatedPayload,
    SeedPrunedPayload,
    SeedStageChangedPayload,
)
from esper_exporter.state import counted
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import SeedLifecycleEvent, SeedState, new_seed
from esper_exporter.state.run import MAX_SLOTS, RunState

MAX_LIFECYCLE_EVENTS = 200
_ACTIONS = {"TRAINING": "[auto]", "PRUNED": "PRUNE", "FOSSILIZED": "FOSSILIZE"}

SeedPayload = (
    SeedGerminatedPayload
    | SeedStageChangedPayload
    | SeedFossilizedPayload
    | SeedPrunedPayload
    | SeedGateEvaluatedPayload
)


class _Place(NamedTuple):
    """Where a seed event belongs."""

    env: EnvState
    seed: SeedState
    slot_id: str


def _place(run: RunState, event: Event, payload: SeedPayload) -> _Place | None:
    """The seed an event is about, made on first sight; None beyond the bounds.

    The envelope's slot is the authority; without one the payload's is used.
    """
    env = run.env(payload.env_id)
    slot_id = event.slot_id or payload.slot_id
    if env is None or (slot_id not in env.seeds and len(env.seeds) >= MAX_SLOTS):
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return None
    run.see_slots((slot_id,))
    run.seeds_reported.add(env.env_id)
    seed = env.seeds.get(slot_id)
    if seed is None:
        seed = env.seeds[slot_id] = new_seed(slot_id)
    run.touched.envs.add(env.env_id)
    run.touched.seeds.add((env.env_id, slot_id))
    return _Place(env, seed, slot_id)


def _bump(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _record(
    place: _Place,
    event: Event,
    payload: SeedGerminatedPayload
    | SeedStageChangedPayload
    | SeedFossilizedPayload
    | SeedPrunedPayload,
    action: str,
    from_stage: str,
    to_stage: str,
    alpha: float | None,
) -> None:
    """Add one transition to the environment's life-cycle history, bounded."""
    events = place.env.lifecycle_events
    if len(events) >= MAX_LIFECYCLE_EVENTS:
        del events[0]
    events.append(
        SeedLifecycleEvent(
            epoch=event.epoch or 0,
            action=action,
            from_stage=from_stage,
            to_stage=to_stage,
            blueprint_id=place.seed.blueprint_id or "unknown",
            slot_id=place.slot_id,
            alpha=alpha,
            accuracy_delta=None,
            morphology_proposal_id=payload.morphology_proposal_id,
            morphology_verdict_id=payload.morphology_verdict_id,
            morphology_mutation_id=payload.morphology_mutation_id,
            rng_stream=payload.rng_stream,
            rng_seed=payload.rng_seed,
        )
    )


def apply_germinated(run: RunState, event: Event, payload: SeedGerminatedPayload) -> None:
    """SEED_GERMINATED."""
    blueprint = payload.blueprint_id
    run.tallies.add(counted.GERMINATIONS, blueprint)
    run.tallies.add(counted.TRANSITIONS, "DORMANT", "GERMINATED")
    place = _place(run, event, payload)
    if place is None:
        return
    # A new seed: nothing is left of the one that was in the slot before.
    seed, env, snapshot = new_seed(place.slot_id), place.env, run.bare_snapshot
    env.seeds[place.slot_id] = seed
    seed.stage = "GERMINATED"
    seed.blueprint_id = blueprint
    seed.seed_params = payload.params
    seed.grad_ratio = payload.grad_ratio
    seed.has_vanishing = payload.has_vanishing
    seed.has_exploding = payload.has_exploding
    seed.epochs_in_stage = payload.epochs_in_stage
    seed.alpha = payload.alpha
    if payload.blend_tempo_epochs is not None:
        seed.blend_tempo_epochs = payload.blend_tempo_epochs
    if payload.alpha_curve is not None:
        seed.alpha_curve = payload.alpha_curve
    env.active_seed_count += 1
    snapshot.cumulative_germinated += 1
    _bump(env.blueprint_spawns, blueprint)
    _bump(snapshot.cumulative_blueprint_spawns, blueprint)
    place = _Place(env, seed, place.slot_id)
    _record(place, event, payload, f"GERMINATE({blueprint})", "DORMANT", "GERMINATED", None)


def apply_stage_changed(run: RunState, event: Event, payload: SeedStageChangedPayload) -> None:
    """SEED_STAGE_CHANGED."""
    run.tallies.add(counted.TRANSITIONS, payload.from_stage, payload.to_stage)
    place = _place(run, event, payload)
    if place is None:
        return
    if payload.to_stage == "DORMANT":
        place.env.seeds[place.slot_id] = new_seed(place.slot_id)
        return
    seed = place.seed
    seed.stage = payload.to_stage
    seed.grad_ratio = payload.grad_ratio
    seed.has_vanishing = payload.has_vanishing
    seed.has_exploding = payload.has_exploding
    seed.epochs_in_stage = payload.epochs_in_stage
    seed.accuracy_delta = payload.accuracy_delta
    if payload.alpha is not None:
        seed.alpha = payload.alpha
    if payload.alpha_curve is not None:
        seed.alpha_curve = payload.alpha_curve
    _record(
        place,
        event,
        payload,
        _ACTIONS.get(payload.to_stage, "ADVANCE"),
        payload.from_stage,
        payload.to_stage,
        payload.alpha,
    )


def apply_fossilized(run: RunState, event: Event, payload: SeedFossilizedPayload) -> None:
    """SEED_FOSSILIZED: the seed is part of the host for good."""
    blueprint = payload.blueprint_id
    run.tallies.add(counted.FOSSILIZATIONS, blueprint)
    run.tallies.add(counted.FOSSILIZED_PARAMS, by=float(max(0, payload.params_added)))
    run.distributions.observe(counted.FOSSILIZED_IMPROVEMENT, payload.improvement / 100.0)
    _live(run, payload.epochs_total)
    place = _place(run, event, payload)
    if place is None:
        return
    seed, env, snapshot = place.seed, place.env, run.bare_snapshot
    came_from = seed.stage
    seed.stage = "FOSSILIZED"
    seed.improvement = payload.improvement
    seed.blueprint_id = blueprint
    seed.epochs_total = payload.epochs_total
    seed.counterfactual = payload.counterfactual
    seed.alpha = payload.alpha
    env.fossilized_params += payload.params_added
    env.fossilized_count += 1
    env.active_seed_count = max(0, env.active_seed_count - 1)
    snapshot.cumulative_fossilized += 1
    _bump(env.blueprint_fossilized, blueprint)
    _bump(snapshot.cumulative_blueprint_fossilized, blueprint)
    _record(place, event, payload, "FOSSILIZE", came_from, "FOSSILIZED", seed.alpha)


def apply_pruned(run: RunState, event: Event, payload: SeedPrunedPayload) -> None:
    """SEED_PRUNED: the slot is free again."""
    place = _place(run, event, payload)
    blueprint = payload.blueprint_id or (place.seed.blueprint_id if place else None)
    initiator = "auto" if payload.auto_pruned else payload.initiator or "policy"
    run.tallies.add(counted.PRUNES, blueprint or "unknown")
    run.tallies.add(counted.PRUNES_BY_REASON, payload.reason, initiator)
    _live(run, payload.epochs_total)
    if place is None:
        return
    seed, env, snapshot = place.seed, place.env, run.bare_snapshot
    came_from, alpha = seed.stage, seed.alpha
    seed.stage = "PRUNED"
    seed.improvement = payload.improvement
    seed.auto_pruned = payload.auto_pruned
    seed.epochs_total = payload.epochs_total
    seed.counterfactual = payload.counterfactual
    seed.blueprint_id = blueprint
    # The slot is free again; what was measured of its seed is obsolete.
    seed.seed_params = seed.alpha = seed.accuracy_delta = seed.grad_ratio = None
    seed.has_vanishing = seed.has_exploding = seed.epochs_in_stage = None
    if blueprint:
        _bump(env.blueprint_prunes, blueprint)
        _bump(snapshot.cumulative_blueprint_prunes, blueprint)
    env.pruned_count += 1
    env.active_seed_count = max(0, env.active_seed_count - 1)
    snapshot.cumulative_pruned += 1
    _record(place, event, payload, "PRUNE", came_from, "PRUNED", alpha)


def apply_gate_evaluated(run: RunState, event: Event, payload: SeedGateEvaluatedPayload) -> None:
    """SEED_GATE_EVALUATED."""
    run.tallies.add(
        counted.GATE_EVALUATIONS,
        payload.gate,
        "passed" if payload.passed else "failed",
    )
    _place(run, event, payload)


def _live(run: RunState, epochs: int | None) -> None:
    if epochs is not None and epochs > 0:
        run.lifecycle.lifespans.append(epochs)
        run.distributions.observe(counted.SEED_LIFESPAN, float(epochs))
