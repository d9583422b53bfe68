"""Analytics snapshots into the state: decisions, rewards, Shapley values, action mix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TypeVar

from esper_exporter.contract.analytics import (
    AnalyticsSnapshotPayload,
    CounterfactualMatrixPayload,
    ObservationStatsTelemetry,
)
from esper_exporter.contract.events import Event
from esper_exporter.contract.vocabulary import HEADS, normalize_action
from esper_exporter.state import counted
from esper_exporter.state.attribution import (
    CounterfactualConfig,
    CounterfactualSnapshot,
    ShapleyEstimate,
    ShapleySnapshot,
)
from esper_exporter.state.copier import copier
from esper_exporter.state.counters import CounterKey, HistogramRow
from esper_exporter.state.decision import HeldDecision, head_values
from esper_exporter.state.environment import EnvState
from esper_exporter.state.run import MAX_SLOTS, RunState
from esper_exporter.state.statistics import ObservationStats

T = TypeVar("T")

GAMMA = 0.995
"""The discount of the real system; a decision's TD advantage is r + γ·V(s') − V(s)."""

_HEAD_HISTOGRAMS = HistogramRow(
    tuple(
        (histogram, (head,))
        for histogram in (counted.DECISION_CONFIDENCE, counted.DECISION_ENTROPY)
        for head in HEADS
    )
)

_NAN_OBSERVATIONS = (counted.NONFINITE_OBSERVATIONS, ("nan",))
_INF_OBSERVATIONS = (counted.NONFINITE_OBSERVATIONS, ("inf",))
_GAMING_STEPS: CounterKey = (counted.GAMING_STEPS, ())

# Reward components: name in the event → name in the state; None in the event leaves the state.
_COMPONENTS = {
    "base_acc_delta": "base_acc_delta",
    "bounded_attribution": "bounded_attribution",
    "seed_contribution": "seed_contribution",
    "escrow_credit_prev": "escrow_credit_prev",
    "escrow_credit_target": "escrow_credit_target",
    "escrow_delta": "escrow_delta",
    "escrow_credit_next": "escrow_credit_next",
    "escrow_forfeit": "escrow_forfeit",
    "compute_rent": "compute_rent",
    "alpha_shock": "alpha_shock",
    "ratio_penalty": "ratio_penalty",
    "stage_bonus": "stage_bonus",
    "fossilize_terminal_bonus": "fossilize_terminal_bonus",
    "blending_warning": "blending_warning",
    "holding_warning": "holding_warning",
    "hindsight_credit": "hindsight_credit",
    "num_fossilized_seeds": "scaffold_count",
    "stable_val_acc": "stable_val_acc",
    "total_reward": "total",
}
_copy_components = copier(_COMPONENTS)
_copy_observations = copier(
    {
        field.name: field.name
        for field in fields(ObservationStats)
        if field.name in ObservationStatsTelemetry.__struct_fields__
    }
)
# What the snapshot carries itself when the typed breakdown is missing (events of the seed age).
_FLAT = (
    "base_acc_delta",
    "bounded_attribution",
    "compute_rent",
    "stage_bonus",
    "ratio_penalty",
    "alpha_shock",
    "hindsight_credit",
    "scaffold_count",
    "avg_scaffold_delay",
)


def apply_analytics(run: RunState, event: Event, payload: AnalyticsSnapshotPayload) -> None:
    """ANALYTICS_SNAPSHOT, by its kind."""
    if payload.observation_stats is not None:
        see_observations(run, event, payload.observation_stats)
    if payload.kind == "last_action":
        _apply_last_action(run, event, payload)
    elif payload.kind == "shapley_computed":
        _apply_shapley(run, event, payload)
    elif payload.kind == "action_distribution":
        if payload.action_counts:
            tamiyo = run.bare_snapshot.tamiyo
            tamiyo.action_counts = dict(payload.action_counts)
            tamiyo.total_actions = sum(payload.action_counts.values())
    elif payload.kind == "batch_stats":
        run.batch_stats = payload
        if payload.skipped_update:
            run.count_skip("unexplained")
        run.end_attempt()


def see_observations(run: RunState, event: Event, stats: ObservationStatsTelemetry) -> None:
    """Apply the health of the policy's inputs; NaN or Inf in them is a separate fault."""
    _copy_observations(stats, run.bare_snapshot.observation_stats)
    run.observed = True
    run.touched.observations = True
    if stats.nan_count or stats.inf_count:
        run.latches.light_source("observations", event.timestamp, run.attempt)
    if stats.nan_count is not None:
        run.tallies.add_to(_NAN_OBSERVATIONS, stats.nan_count)
    if stats.inf_count is not None:
        run.tallies.add_to(_INF_OBSERVATIONS, stats.inf_count)


def _apply_last_action(run: RunState, event: Event, payload: AnalyticsSnapshotPayload) -> None:
    env_id = payload.env_id
    op = normalize_action(payload.action_name or "UNKNOWN")
    success = payload.action_success
    run.decisions.add(run.tallies, payload, op)
    if env_id is None or payload.action_confidence is None:
        return
    env = run.env(env_id)
    if env is None:
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    reward = payload.total_reward
    if reward is not None:
        env.reward_history.append(reward)
        env.cumulative_reward += reward
    env.current_epoch = event.epoch if event.epoch is not None else 0
    env.action_history.append(op)
    if op in env.action_counts or len(env.action_counts) < MAX_SLOTS:
        env.action_counts[op] = env.action_counts.get(op, 0) + 1
    env.total_actions += 1
    if success is not None:
        env.last_action_success = success
        run.envs_with_success.add(env_id)
    _take_reward_components(run, env, payload, op)
    env.total_reward_steps += 1
    components = env.reward_components
    if components.ratio_penalty is not None or components.alpha_shock is not None:
        struck = bool(components.ratio_penalty or components.alpha_shock)
        env.gaming_trigger_count += struck
        run.tallies.add_to(_GAMING_STEPS, struck)
    _decide(run, event, payload, env, op, reward)
    run.touched.envs.add(env_id)


def _take_reward_components(
    run: RunState, env: EnvState, payload: AnalyticsSnapshotPayload, op: str
) -> None:
    state = env.reward_components
    reported = payload.reward_components
    if not env.active_seed_count:
        # The last reported contribution belonged to a seed that is gone.
        state.seed_contribution = state.bounded_attribution = None
    if reported is not None:
        _copy_components(reported, state)
        run.last_rewards[env.env_id] = reported
    else:
        for name in _FLAT:
            value = getattr(payload, name)
            if value is not None:
                setattr(state, name, value)
        if payload.total_reward is None:
            return
        state.total = payload.total_reward
    state.last_action = op
    state.env_id = env.env_id
    state.val_acc = env.host_accuracy if env.accuracy_history else None


def _decide(
    run: RunState,
    event: Event,
    payload: AnalyticsSnapshotPayload,
    env: EnvState,
    op: str,
    reward: float | None,
) -> None:
    """Record a decision, and settle the TD advantage of the one before it."""
    env_id, value = env.env_id, payload.value_estimate
    pending = run.pending.pop(env_id, None)
    if pending is not None and value is not None:
        reported = pending.payload
        advantage = reported.total_reward + GAMMA * value - reported.value_estimate  # type: ignore[operator]
        pending.advantage(advantage)
        run.td_advantages[env_id] = advantage
    snapshot, heads = run.bare_snapshot, payload.head_telemetry
    if heads is not None:
        run.distributions.hold(_HEAD_HISTOGRAMS, head_values(heads))
    decision = HeldDecision(
        event,
        payload,
        op,
        env_id,
        env.host_accuracy or 0.0,
        snapshot.current_episode,
        snapshot.current_epoch,
        snapshot.current_batch,
    )
    if reward is not None and value is not None:
        run.pending[env_id] = decision
    run.last_decision[env_id] = decision
    run.held_decisions.append(decision)
    if payload.action_success is not None:
        snapshot.tamiyo.last_action_success = payload.action_success


def _apply_shapley(run: RunState, event: Event, payload: AnalyticsSnapshotPayload) -> None:
    if payload.env_id is None or payload.shapley_values is None:
        return
    env = run.env(payload.env_id)
    if env is None:
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    values = {
        slot_id: ShapleyEstimate(
            mean=reported.get("mean"),
            std=reported.get("std"),
            n_samples=None if (samples := reported.get("n_samples")) is None else int(samples),
        )
        for slot_id, reported in _first(payload.shapley_values.items(), MAX_SLOTS)
    }
    env.shapley_snapshot = ShapleySnapshot(
        tuple(values), values, payload.batch or 0, event.timestamp
    )
    env.best_shapley_snapshot = ShapleySnapshot(
        tuple(values), dict(values), payload.batch or 0, event.timestamp
    )
    run.touched.attribution.add(env.env_id)


def apply_counterfactual(run: RunState, event: Event, payload: CounterfactualMatrixPayload) -> None:
    """COUNTERFACTUAL_MATRIX_COMPUTED: accuracies of an environment with seeds switched off."""
    env = run.env(payload.env_id)
    if env is None:
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    env.counterfactual_matrix = CounterfactualSnapshot(
        slot_ids=payload.slot_ids,
        configs=[CounterfactualConfig(c.seed_mask, c.accuracy) for c in payload.configs],
        strategy=payload.strategy or "unavailable",
        compute_time_ms=payload.compute_time_ms or 0.0,
    )
    if payload.compute_time_ms is not None:
        run.tallies.add(counted.COUNTERFACTUAL_SECONDS, by=payload.compute_time_ms / 1000.0)
    run.tallies.add(counted.COUNTERFACTUAL_MATRICES)
    run.touched.attribution.add(env.env_id)


def _first(items: Iterable[T], count: int) -> list[T]:
    return [item for item, _ in zip(items, range(count), strict=False)]
