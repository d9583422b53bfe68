"""A policy update into the state: TamiyoState, latches, and what a 15 s scrape would miss."""

from __future__ import annotations

import math
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import astuple

from esper_exporter import health
from esper_exporter.contract.events import Event
from esper_exporter.contract.tamiyo import TamiyoInitiatedPayload, TamiyoPolicyUpdatePayload
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS, OPS, head_max_entropy
from esper_exporter.state import counted
from esper_exporter.state.counters import HistogramRow
from esper_exporter.state.heads import apply_heads, see_heads
from esper_exporter.state.policy import (
    GradientQualityMetrics,
    InfrastructureMetrics,
    TamiyoState,
    ValueFunctionMetrics,
)
from esper_exporter.state.run import HeldUpdate, RunState
from esper_exporter.state.torch_memory import of_update
from esper_exporter.state.trends import (
    compute_collapse_risk,
    compute_entropy_velocity,
)

ENTROPY_COLLAPSE = 0.1
ENTROPY_WARNING = 0.3
ENTROPY_HEALTHY = 1.39
VALUE_SPREAD_WARMUP_BATCHES = 50
VALUE_SPREAD_MINIMUM = 0.1

# Fields that go into the state under another name, or by a separate rule.
_RENAMED = {"lr": "learning_rate", "batch": "ppo_batch"}
_BY_RULE = frozenset(
    {"entropy_coef", "learning_rate", "layer_gradient_health", "pre_norm_advantage_std"}
    | {"head_nan_latch", "head_inf_latch", "group_id", "op_q_values", "op_valid_mask"}
)
_HISTORIES = ("entropy", "clip_fraction")
"""Whose trends are looked at."""

_HISTORY_FIELDS = tuple(f"{name}_history" for name in _HISTORIES)
_in_history = attrgetter(*_HISTORIES)


def _shared(target: type) -> tuple[str, ...]:
    """Field names that the payload and a state class have in common."""
    have = set(TamiyoPolicyUpdatePayload.__struct_fields__)
    return tuple(f.name for f in fields(target) if f.name in have and f.name not in _BY_RULE)


_PARTS = tuple(
    _shared(target)
    for target in (TamiyoState, ValueFunctionMetrics, GradientQualityMetrics, InfrastructureMetrics)
)
_parts_of = attrgetter(*(name for names in _PARTS for name in names))


def _copy_shared(payload: TamiyoPolicyUpdatePayload, tamiyo: TamiyoState) -> None:
    """Copy the fields that a payload shares with the state and its parts, all at once."""
    values = iter(_parts_of(payload))
    states = (
        *(tamiyo, tamiyo.value_function),
        *(tamiyo.gradient_quality, tamiyo.infrastructure),
    )
    for names, state in zip(_PARTS, states, strict=True):
        # Names first: zip takes no value that it has no name for.
        state.__dict__.update(zip(names, values, strict=False))


MAX_HELD = 32
"""Policy updates that are held before they are brought into the snapshot."""

_ALL_HEADS = (*HEADS, *AUX_HEADS)
_FIELDS = TamiyoPolicyUpdatePayload.__struct_fields__


def _picker(*names: str) -> itemgetter[Any]:
    """Picks fields from ``astuple`` of an update, a tenth of the cost of attributes."""
    return itemgetter(*map(_FIELDS.index, names))


_gradient_states = _picker(*(f"head_{head}_gradient_state" for head in _ALL_HEADS))
_doubtful = _picker(
    *("nan_grad_count", "inf_grad_count", "grad_nan_layers", "action_heads", "head_updates"),
    *("lstm_has_nan", "lstm_has_inf", "rollout_lstm_has_nan", "rollout_lstm_has_inf"),
    *("amp_overflow_detected", "amp_overflow_count"),
)
"""What is false, 0 or empty unless something may be wrong, or heads are to be learnt."""
_to_be_finite = _picker("policy_loss", "value_loss", "grad_norm", "pre_clip_grad_norm", "ratio_max")
_flags = _picker("head_nan_detected", "head_inf_detected")
_grad_norms = attrgetter(*(f"head_{head}_grad_norm" for head in _ALL_HEADS))
_KNOWN_HEADS, _TAMIYO_HEADS = frozenset(_ALL_HEADS), frozenset(HEADS)
_HEAD_GRAD_NORMS = HistogramRow(tuple((counted.HEAD_GRAD_NORM, (head,)) for head in _ALL_HEADS))


_REPORTED = {
    "ev_low_return_variance": counted.LOW_RETURN_VARIANCE,
    "advantage_std_floored": counted.ADVANTAGE_STD_FLOORED,
    "entropy_collapsed": counted.ENTROPY_COLLAPSED,
    "loss_scale_updates": counted.LOSS_SCALE_UPDATES,
    "rollback_steps_zeroed": counted.ROLLBACK_STEPS_ZEROED,
    "trust_region_violations": counted.TRUST_REGION_VIOLATIONS,
    "log_prob_underflow_count": counted.LOG_PROB_UNDERFLOWS,
}
"""Fields of an update that are counted as they are reported."""
_REPORTED_COUNTERS = tuple(_REPORTED.values())
_reported = attrgetter(*_REPORTED)


def light_latches(run: RunState, event: Event, payload: TamiyoPolicyUpdatePayload) -> None:
    """Light a latch for everything non-finite that a policy update reports, also for an update
    whose other fields could not be read: a fault outlives a malformed event."""
    if _nothing_wrong(payload):
        run.overflows_in_a_row = 0
        run.begin_attempt("flags")
    else:
        _light_each(run, event, payload)
    latches = run.latches
    if not latches.lightings:
        return
    tamiyo = run.bare_snapshot.tamiyo
    for head, kind in latches.lit_heads():
        board = tamiyo.head_nan_latch if kind == "nan" else tamiyo.head_inf_latch
        board[head] = True


def _light_each(run: RunState, event: Event, payload: TamiyoPolicyUpdatePayload) -> None:
    see_heads(run, payload.action_heads)
    run.overflows_in_a_row = run.overflows_in_a_row + 1 if _overflowed(payload) else 0
    attempt = run.begin_attempt("flags")
    when, latches = event.timestamp, run.latches
    index = payload.ppo_update_idx
    batch = payload.batch or None
    latches.light_flags("nan", payload.head_nan_detected, when, attempt, index, batch)
    latches.light_flags("inf", payload.head_inf_detected, when, attempt, index, batch)
    if _gradients_nonfinite(payload) and not _overflow_handled(payload, run.overflows_in_a_row):
        latches.light_source("gradients", when, attempt, index)
    for loss in (payload.policy_loss, payload.value_loss):
        if loss is not None and not math.isfinite(loss):
            latches.light_source("loss", when, attempt, index)
    if (
        payload.lstm_has_nan
        or payload.lstm_has_inf
        or payload.rollout_lstm_has_nan
        or payload.rollout_lstm_has_inf
    ):
        latches.light_source("lstm", when, attempt, index)
    ratio = payload.ratio_max
    if ratio is not None and not math.isfinite(ratio):
        latches.light_source("ratio", when, attempt, index)


def _nothing_wrong(payload: TamiyoPolicyUpdatePayload) -> bool:
    """Whether an update plainly has nothing to report to the latches, as nearly all of them."""
    values = astuple(payload)
    if any(_doubtful(values)) or "nonfinite" in _gradient_states(values):
        return False
    # NaN and infinities stay in the sum; one that overflows is looked at number by number.
    if not math.isfinite(sum(filter(None, _to_be_finite(values)))):
        return False
    nan, inf = _flags(values)
    return not (nan and True in nan.values()) and not (inf and True in inf.values())


def _gradients_nonfinite(payload: TamiyoPolicyUpdatePayload) -> bool:
    """Whether any field of an update reports NaN or Inf in a gradient."""
    norms = (payload.grad_norm, payload.pre_clip_grad_norm)
    return bool(
        payload.nan_grad_count
        or payload.inf_grad_count
        or payload.grad_nan_layers
        or any(norm is not None and not math.isfinite(norm) for norm in norms)
        or "nonfinite" in _gradient_states(astuple(payload))
        or any(head.gradient_state == "nonfinite" for head in (payload.head_updates or {}).values())
    )


def _overflowed(payload: TamiyoPolicyUpdatePayload) -> bool:
    """Whether GradScaler dropped a step of this update because its scaled gradients overflowed.

    A count alone does not say so: the host's scalers are counted there too.
    """
    if payload.amp_overflow_detected:
        return True
    stepped_back = payload.update_skipped or payload.grad_scaler_state == "decaying"
    return (
        payload.amp_overflow_detected is None
        and bool(payload.amp_overflow_count)
        and bool(stepped_back)
    )


def _overflow_handled(payload: TamiyoPolicyUpdatePayload, overflows_in_a_row: int) -> bool:
    """Whether the update's non-finite gradients are an overflow that GradScaler took care of.

    That is how a loss scale is found, and no fault, unless the scale is so low that the gradient
    itself overflows, or the overflows do not end.
    """
    if not _overflowed(payload):
        return False
    scale = payload.loss_scale
    if scale is not None and scale <= health.AMP_LOSS_SCALE_FLOOR:
        return False
    return overflows_in_a_row < health.AMP_OVERFLOWS_IN_A_ROW


def apply_policy_update(run: RunState, event: Event, payload: TamiyoPolicyUpdatePayload) -> None:
    """TAMIYO_POLICY_UPDATE / PPO_UPDATE_COMPLETED."""
    light_latches(run, event, payload)
    if payload.skipped:
        run.count_skip("rollback")
        return
    run.update = payload
    if payload.kl_divergence_after_update is not None:
        run.after_update = payload
    run.last_update_at = event.timestamp
    if payload.cuda_memory_reserved_gb:
        run.see_memory(of_update(payload))
    snapshot, held = run.bare_snapshot, run.held_updates
    snapshot.tamiyo.ppo_data_received = True
    held.append(HeldUpdate(event, payload, snapshot.current_batch, run.overflows_in_a_row))
    run.settle_updates = settle_updates
    if len(held) >= MAX_HELD:
        settle_updates(run)
    # Layers that this update does not report are removed.
    run.touched.policy = run.touched.layers = True


def settle_updates(run: RunState) -> None:
    """Bring the held updates into counters and snapshot; most fields only of the newest one."""
    held, run.held_updates = run.held_updates, []
    for event, payload, batch, overflows_in_a_row in held:
        _count(run, event, payload, overflows_in_a_row)
        tamiyo = run.bare_snapshot.tamiyo
        newest = payload is held[-1].payload
        if newest:
            _copy_shared(payload, tamiyo)
        _keep_last_reported(event, payload, tamiyo)
        apply_heads(run, payload.heads)
        _read_entropies(run)
        state = tamiyo.__dict__
        for history, value in zip(_HISTORY_FIELDS, _in_history(payload), strict=True):
            if value is not None:
                state[history].append(value)
        _predict_collapse(tamiyo, payload, batch)


def _keep_last_reported(
    event: Event, payload: TamiyoPolicyUpdatePayload, tamiyo: TamiyoState
) -> None:
    """Fields that an update without them leaves unchanged, or that have a separate rule."""
    count = len(OPS)
    values, mask = payload.op_q_values, payload.op_valid_mask
    tamiyo.op_q_values = values if values and len(values) == count else (math.nan,) * count
    tamiyo.op_valid_mask = mask if mask and len(mask) == count else (False,) * count
    tamiyo.ppo_batch = payload.batch if payload.batch is not None else 0
    if payload.lr is not None:
        tamiyo.learning_rate = payload.lr
    if payload.entropy_coef is not None:
        tamiyo.entropy_coef = payload.entropy_coef
    if payload.layer_gradient_health is not None:
        tamiyo.layer_gradient_health = payload.layer_gradient_health
    tamiyo.pre_norm_advantage_std = payload.d5_pre_norm_advantage_std
    if event.group_id != "default":
        tamiyo.group_id = event.group_id


def _read_entropies(run: RunState) -> None:
    """Head entropies as a share of their maximum, from either of the two scales.

    Today's events carry the share; those of the seed documents' age carry nats. A share cannot
    exceed 1, so the first value that does settles it for the whole run.
    """
    reported = {
        head: state
        for head, state in run.bare_snapshot.tamiyo.heads.items()
        if head in _TAMIYO_HEADS and state.entropy is not None
    }
    if not run.entropy_in_nats:
        run.entropy_in_nats = any((s.entropy or 0.0) > 1.0 + 1e-6 for s in reported.values())
    if run.entropy_in_nats:
        n_slots = len(run.bare_snapshot.slot_ids)
        for head, state in reported.items():
            limit = head_max_entropy(head, n_slots)
            state.entropy = (state.entropy or 0.0) / limit if limit > 0 else None


def _predict_collapse(tamiyo: TamiyoState, payload: TamiyoPolicyUpdatePayload, batch: int) -> None:
    if tamiyo.initial_value_spread is None and (
        batch >= VALUE_SPREAD_WARMUP_BATCHES
        and payload.value_max is not None
        and payload.value_min is not None
    ):
        spread = payload.value_max - payload.value_min
        if spread > VALUE_SPREAD_MINIMUM:
            tamiyo.initial_value_spread = spread
    tamiyo.entropy_velocity = compute_entropy_velocity(tamiyo.entropy_history)
    tamiyo.collapse_risk_score = compute_collapse_risk(
        tamiyo.entropy_history,
        critical_threshold=ENTROPY_COLLAPSE,
        warning_threshold=ENTROPY_WARNING,
        max_healthy_entropy=ENTROPY_HEALTHY,
        previous_risk=tamiyo._previous_risk,
        velocity=tamiyo.entropy_velocity,
    )
    tamiyo._previous_risk = tamiyo.collapse_risk_score


def _count(
    run: RunState, event: Event, payload: TamiyoPolicyUpdatePayload, overflows_in_a_row: int
) -> None:
    """What a gauge would show only if a scrape happened to come at the right moment."""
    tallies, distributions = run.tallies, run.distributions
    tallies.add(counted.UPDATES)
    norm = payload.pre_clip_grad_norm
    if norm is None:
        norm = payload.grad_norm
    if payload.max_grad_norm:
        run.explosion_norm = health.EXPLOSION_FACTOR * payload.max_grad_norm
    if norm is not None and (
        math.isfinite(norm) or not _overflow_handled(payload, overflows_in_a_row)
    ):
        distributions.observe(counted.UPDATE_GRAD_NORM, norm)
        if not math.isfinite(norm):
            tallies.add(counted.NONFINITE_GRAD_NORMS)
        if norm > run.explosion_norm:
            tallies.add(counted.GRADIENT_EXPLOSIONS)
        run.largest_grad_norm = run.grad_norms.add(event.timestamp.timestamp(), norm)
    if run.heads == HEADS and not payload.head_updates:
        distributions.hold(_HEAD_GRAD_NORMS, _grad_norms(payload))
    else:
        _observe_heads(run, payload)
    if payload.update_time_ms is not None:
        distributions.observe(counted.UPDATE_DURATION, payload.update_time_ms / 1000.0)
    if payload.early_stop_epoch is not None:
        tallies.add(counted.EARLY_STOPS)
    overflows = _overflows(payload)
    if overflows is not None:
        tallies.add(counted.AMP_OVERFLOWS, by=float(overflows))
    for counter, reported in zip(_REPORTED_COUNTERS, _reported(payload), strict=True):
        if reported is not None:
            tallies.add(counter, by=float(reported))


def _observe_heads(run: RunState, payload: TamiyoPolicyUpdatePayload) -> None:
    """The gradient norms of the heads that the policy has."""
    norms = {
        head: update.grad_norm
        for head, update in payload.heads.items()
        if head in run.heads or head in AUX_HEADS
    }
    run.distributions.hold(_HEAD_GRAD_NORMS, [norms.get(head) for head in _ALL_HEADS])
    for head in norms.keys() - _KNOWN_HEADS:
        run.distributions.observe(counted.HEAD_GRAD_NORM, norms[head], head)


def _overflows(payload: TamiyoPolicyUpdatePayload) -> int | None:
    """AMP overflows in an update; None where the trainer does not measure them.

    The contract's default for ``amp_overflow_detected`` is False, so that alone is no measurement:
    one that scales its loss reports a loss scale.
    """
    detected = bool(payload.amp_overflow_detected)
    if payload.amp_overflow_count is not None:
        return max(payload.amp_overflow_count, int(detected))
    return int(detected) if detected or payload.loss_scale is not None else None


def apply_tamiyo_initiated(run: RunState, event: Event, payload: TamiyoInitiatedPayload) -> None:
    """TAMIYO_INITIATED: the host is stable, seeds may germinate."""
    run.tallies.add(counted.INITIATIONS)
