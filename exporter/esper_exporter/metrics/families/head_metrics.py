"""Tamiyo's eight action heads: entropy, gradients, ratios, states and the non-finite latches."""

from __future__ import annotations

from typing import Any

from esper_exporter import health
from esper_exporter.contract.vocabulary import (
    AUX_HEADS,
    GRADIENT_STATES,
    HEAD_ENTROPY_COEFFICIENTS,
    HEADS,
    head_max_entropy,
)
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram, states
from esper_exporter.state import counted
from esper_exporter.state.latches import KINDS, NONFINITE_SOURCES

UPDATE = "event:PPO_UPDATE_COMPLETED."


def _choice_entropy(roots: Any) -> Any:
    head = roots["head"]
    return health.normalized_entropy_where_choice(head.entropy, head.learnable_fraction)


def _entropy_nats(roots: Any) -> Any:
    update = roots["update"]
    reported = update.head_entropy_nats if update is not None else None
    if reported:
        return reported.get(roots["name"])
    share, head = roots["head"].entropy, roots["name"]
    slots = len(roots["snapshot"].slot_ids)
    if share is None or not slots or head not in HEADS:
        return None
    return share * head_max_entropy(head, slots)


def _coefficient(roots: Any) -> Any:
    """Tamiyo's own weight; a policy that reports no entropy of the head may weigh it otherwise."""
    if roots["head"].entropy is None:
        return None
    return HEAD_ENTROPY_COEFFICIENTS.get(roots["name"])


def _state(roots: Any) -> Any:
    """The head's state by the ActionHeadsPanel table; forced steps do not count as collapse."""
    head, name = roots["head"], roots["name"]
    if name in AUX_HEADS or roots["update"] is None:
        return None
    share = _choice_entropy(roots)
    if share is None:
        share = head.entropy
    slots = len(roots["snapshot"].slot_ids)
    return health.classify_head(name, head.grad_norm, share, slots).value


def _head(name: str, field: str, help: str, *, state: bool = True, event: bool = True) -> Metric:
    """A per-head field: of TamiyoState when ``state``, of the policy update when ``event``."""
    in_state, in_event = f"tamiyo.head_{{head}}_{field}", f"{UPDATE}head_{{head}}_{field}"
    sources = ((in_state,) if state else ()) + ((in_event,) if event else ())
    return gauge("head", name, sources, help)


METRICS: tuple[Metric, ...] = (
    _head(
        "esper_tamiyo_head_entropy_ratio",
        "entropy",
        "Entropy of a head as a share of its maximum, averaged over all steps, forced ones"
        " (entropy 0) included.",
    ),
    gauge(
        "head",
        "esper_tamiyo_head_choice_entropy_ratio",
        "derived: head entropy divided by the head's learnable fraction",
        "Entropy of a head as a share of its maximum where the head had a choice; below 0.25 it"
        " collapses. Absent when it had none.",
        read=_choice_entropy,
    ),
    gauge(
        "head",
        "esper_tamiyo_head_entropy_nats",
        (
            UPDATE + "head_entropy_nats[{head}]",
            "derived: else head entropy times the head's maximum entropy",
        ),
        "Entropy of a head in nats, averaged over all steps.",
        read=_entropy_nats,
    ),
    gauge(
        "head",
        "esper_tamiyo_head_entropy_coefficient",
        "derived: the head's fixed weight in the policy entropy",
        "Weight of a head in the policy entropy.",
        read=_coefficient,
    ),
    _head(
        "esper_tamiyo_head_grad_norm", "grad_norm", "Gradient norm of a head in the last update."
    ),
    _head(
        "esper_tamiyo_head_grad_norm_previous",
        "grad_norm_prev",
        "Gradient norm of a head in the update before the last.",
        event=False,
    ),
    _head(
        "esper_tamiyo_head_ratio_max",
        "ratio_max",
        "Largest probability ratio of a head; healthy within 0.8 to 1.2.",
    ),
    _head(
        "esper_tamiyo_head_clipped_ratio",
        "clip_fraction",
        "Share of a head's samples that PPO clipped.",
        state=False,
    ),
    _head(
        "esper_tamiyo_head_learnable_ratio",
        "learnable_fraction",
        "Share of steps in which the head had a choice.",
        state=False,
    ),
    _head(
        "esper_tamiyo_head_active_ratio",
        "active_ratio",
        "Share of steps in which the head mattered for what was done.",
        state=False,
    ),
    _head("esper_tamiyo_head_kl_nats", "kl", "KL divergence of a head.", state=False),
    states(
        "head",
        "esper_tamiyo_head_state",
        "state",
        health.HEAD_STATES,
        "derived: health.classify_head over gradient norm and entropy",
        "State of a head: 1 for the current one.",
        _state,
    ),
    states(
        "head",
        "esper_tamiyo_head_gradient_state",
        "state",
        tuple(GRADIENT_STATES),
        "derived: head_{head}_gradient_state of the last update",
        "State of a head's gradient as the trainer reports it: 1 for the current state.",
        lambda roots: roots["head"].gradient_state,
    ),
    gauge(
        "head_latch",
        "esper_tamiyo_head_nonfinite_latched",
        ("tamiyo.head_{kind}_latch[{head}]", UPDATE + "head_{kind}_detected[{head}]"),
        "1 once a head produced NaN or Inf log-probabilities, until the run ends. Where the trainer"
        " does not say which of the two, nan is lit.",
    ),
    gauge(
        "head_latch",
        "esper_tamiyo_head_nonfinite_first_timestamp_seconds",
        "derived: time of the first event that lit the latch",
        "When a head's latch was lit first; absent until then.",
    ),
    gauge(
        "head_latch",
        "esper_tamiyo_head_nonfinite_last_timestamp_seconds",
        "derived: time of the last event that lit the latch",
        "When a head was non-finite last; absent until then.",
    ),
    gauge(
        "head_latch",
        "esper_tamiyo_head_nonfinite_first_update",
        "derived: update index of the first update that lit the latch, if reported",
        "Index within its batch of the update that lit a head's latch first.",
    ),
    gauge(
        "head_latch",
        "esper_tamiyo_head_nonfinite_first_batch",
        "derived: batch of the first update that lit the latch, when it was reported",
        "Batch of the update that lit a head's latch first.",
    ),
    Metric(
        name="esper_tamiyo_head_nonfinite_updates_total",
        kind="counter",
        help="Policy updates in which a head was non-finite, skipped ones included.",
        block="head_latch",
        labels=("run_id", "group_id", "rank", "head", "kind"),
        sources=("derived: updates that lit the latch, each counted once, whatever reported it",),
    ),
    gauge(
        "source_latch",
        "esper_tamiyo_nonfinite_latched",
        "derived: 1 once an event named the source as non-finite",
        "1 once NaN or Inf was seen in a part of the training, until the run ends.",
    ),
    gauge(
        "source_latch",
        "esper_tamiyo_nonfinite_first_timestamp_seconds",
        "derived: time of the first event that named the source as non-finite",
        "When a part of the training was non-finite first; absent until then.",
    ),
    gauge(
        "source_latch",
        "esper_tamiyo_nonfinite_last_timestamp_seconds",
        "derived: time of the last event that named the source as non-finite",
        "When a part of the training was non-finite last; absent until then.",
    ),
    Metric(
        name="esper_tamiyo_nonfinite_updates_total",
        kind="counter",
        help="Policy updates in which a part of the training was non-finite.",
        block="source_latch",
        labels=("run_id", "group_id", "rank", "source"),
        sources=("derived: updates that lit the latch, each counted once, whatever reported it",),
    ),
    histogram(
        counted.HEAD_GRAD_NORM,
        "derived: head_{head}_grad_norm of every policy update",
        "Gradient norm of a head, every policy update.",
    ),
    histogram(
        counted.DECISION_CONFIDENCE,
        "derived: confidence of each head in every decision",
        "Probability of what a head chose, every decision.",
    ),
    histogram(
        counted.DECISION_ENTROPY,
        "derived: entropy of each head in every decision, as a share of its maximum",
        "Entropy of a head as a share of its maximum, every decision.",
    ),
    gauge(
        "layer",
        "esper_tamiyo_layer_gradient_health_ratio",
        ("tamiyo.layer_gradient_health[{layer}]", UPDATE + "layer_gradient_health[{layer}]"),
        "Gradient health of a parameter tensor, 0 to 1; absent while the trainer does not measure"
        " it.",
    ),
    gauge(
        "layer_norm",
        "esper_tamiyo_layer_grad_norm",
        UPDATE + "grad_norm_per_layer[{layer}]",
        "Gradient norm of a layer before clipping.",
    ),
)

HEAD_LATCH_ROWS = tuple((head, kind) for head in HEADS for kind in KINDS)
SOURCE_LATCH_ROWS = NONFINITE_SOURCES
HEAD_ROWS = (*HEADS, *AUX_HEADS)

CHOICES: tuple[Metric, ...] = (
    counter(
        counted.CHOICES,
        "derived: number of decisions in which the head made the choice",
        "Decisions by head and choice, of heads that mattered for the operation; choices outside"
        " the vocabulary are counted as other.",
    ),
)
