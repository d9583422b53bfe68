"""The ActionHeads panel as JSON: each cell with its number, level, flag, bar and symbol.

Source: the ActionHeadsPanel document. The thresholds come from `esper_exporter.health`, so that
page, rules and dashboards agree; the page itself compares nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from esper_exporter import health
from esper_exporter.contract.tamiyo import HeadUpdatePayload
from esper_exporter.contract.vocabulary import HEAD_ENTROPY_COEFFICIENTS, HEADS
from esper_exporter.health import HeadState, Level
from esper_exporter.serve.page.numbers import Json, level_of, number, short, unix
from esper_exporter.state.history import LatchSeen, RunHistory
from esper_exporter.state.latches import Latch
from esper_exporter.state.run import RunState

BLOCKS = 5
DOCUMENTED_LAYERS = 12
"""The panel document's number of layers, for runs that do not report theirs."""

PANEL_ORDER = ("op", *(head for head in HEADS if head != "op"))
LABELS = {
    "op": "Op",
    "slot": "Slot",
    "blueprint": "Blueprint",
    "style": "Style",
    "tempo": "Tempo",
    "alpha_target": "αTarget",
    "alpha_speed": "αSpeed",
    "alpha_curve": "Curve",
}
STATES = {
    HeadState.DEAD: "crit",
    HeadState.EXPLODING: "crit",
    HeadState.DETERMINISTIC: "dim",
    HeadState.COLLAPSED: "warn",
    HeadState.CONFUSED: "warn",
    HeadState.HEALTHY: "ok",
    HeadState.INDETERMINATE: "dim",
    HeadState.UNKNOWN: "none",
}
TRENDS = {"→": "flat", "↗": "up", "↘": "down", "": "none"}
TRAIL_COLUMNS = ("entropy", "gradient", "ratio")
TRAIL_DIGITS = 4
"""Significant digits of a line of 236 pixels."""
CV_WORDS = {"ok": "stable", "warn": "warn", "crit": "BAD", "none": ""}


@dataclass(frozen=True, slots=True)
class HeadReading:
    """What the last update reported about one head.

    ``entropy`` is the share of the maximum over the steps at which the head had a choice,
    ``entropy_all`` over all steps; ``grad_norm_prev`` is None before the second update.
    """

    entropy: float | None = None
    entropy_all: float | None = None
    grad_norm: float | None = None
    grad_norm_prev: float | None = None
    ratio_max: float | None = None
    learnable_fraction: float | None = None
    clip_fraction: float | None = None
    kl: float | None = None


def panel_heads(run: RunState) -> list[str]:
    """The run's heads in the panel's order, then custom heads in the policy's order."""
    known = [head for head in PANEL_ORDER if head in run.heads]
    return known + [head for head in run.heads if head not in LABELS]


def read_head(run: RunState, head: str) -> HeadReading:
    """The reading of a head; all None before the first update."""
    tamiyo = run.snapshot.tamiyo
    if not tamiyo.ppo_data_received:
        return HeadReading()
    state = tamiyo.heads.get(head)
    if state is None:
        return HeadReading()
    return HeadReading(
        _shown_entropy(state.entropy, state.learnable_fraction),
        state.entropy,
        state.grad_norm,
        state.grad_norm_prev,
        state.ratio_max,
        state.learnable_fraction,
        state.clip_fraction,
        state.kl,
    )


def _shown_entropy(entropy: float | None, learnable: float | None) -> float | None:
    """The share of the maximum where the head had a choice; over all steps where that is not
    known."""
    choice = health.normalized_entropy_where_choice(entropy, learnable)
    return entropy if choice is None else choice


def entropy_blocks(share: float | None) -> int:
    """Filled blocks of five, rounded down: 0.9999 fills four."""
    if share is None or share != share:
        return 0
    return int(max(0.0, min(1.0, share)) * BLOCKS)


def gradient_blocks(norm: float | None) -> int:
    """Filled blocks of five on the panel's logarithmic scale."""
    if norm is None or norm != norm or norm == 0:
        return 0
    if norm < health.HEAD_GRAD_NORM_DEAD:
        fill = 0.1
    elif norm < health.HEAD_GRAD_NORM_LOW:
        fill = 0.2
    elif norm <= health.HEAD_GRAD_NORM_HIGH:
        fill = max(0.3, min(1.0, 0.5 + (math.log10(norm) + 1) * 0.35))
    else:
        fill = 0.8 if norm <= health.HEAD_GRAD_NORM_EXPLODING else 1.0
    return int(fill * BLOCKS)


def ratio_blocks(ratio: float | None) -> int:
    """Filled blocks of five: how far a ratio is from 1, full at a half and at two."""
    if ratio is None or ratio != ratio:
        return 0
    fill = 1.0 if ratio <= 0 or math.isinf(ratio) else min(1.0, abs(math.log(ratio)) / 0.7)
    return int(fill * BLOCKS)


def flag(level: Level, low: bool) -> str:
    """``L``, ``LL``, ``H``, ``HH`` as in a laboratory report; empty within the range."""
    letter = "L" if low else "H"
    return {Level.WARNING: letter, Level.CRITICAL: letter * 2}.get(level, "")


def _cell(value: float | None, level: Level, low: bool, blocks: int) -> Json:
    finite = value is None or math.isfinite(value)
    return {
        "value": number(value),
        "level": level_of(value, level),
        "flag": flag(level, low) if finite else "",
        "blocks": blocks,
    }


def latch_json(latch: Latch | None, seen: LatchSeen | None) -> Json:
    """A latch: whether it is set, how many updates set it, the first and last of them, and when."""
    if latch is None or not latch.lit:
        return {"set": False, "updates": 0, "first": None, "last": None, "since": None, "at": None}
    first = seen.first if seen else latch.first_update
    return {
        "set": True,
        "updates": latch.updates,
        "first": first,
        "last": seen.last if seen else first,
        "since": unix(latch.first),
        "at": unix(latch.last),
    }


def head_state(run: RunState, head: str, reading: HeadReading) -> HeadState:
    """The head's state by the panel's table."""
    slots = len(run.snapshot.slot_ids)
    return health.classify_head(head, reading.grad_norm, reading.entropy, slots)


def head_json(run: RunState, history: RunHistory, head: str) -> Json:
    """One column of the grid."""
    reading = read_head(run, head)
    norm, ratio = reading.grad_norm, reading.ratio_max
    arrow, trend = health.gradient_trend(norm, reading.grad_norm_prev)
    state = head_state(run, head, reading)
    return {
        "name": head,
        "label": LABELS.get(head, head),
        "coefficient": HEAD_ENTROPY_COEFFICIENTS.get(head),
        "entropy": _cell(
            reading.entropy,
            health.entropy_level(reading.entropy),
            True,
            entropy_blocks(reading.entropy),
        ),
        "gradient": {
            **_cell(
                norm,
                health.head_gradient_level(norm),
                norm is not None and norm < health.HEAD_GRAD_NORM_LOW,
                gradient_blocks(norm),
            ),
            "trend": TRENDS[arrow],
            "trend_level": "none" if not arrow else _trend_level(trend),
            "previous": number(reading.grad_norm_prev),
        },
        "ratio": _cell(
            ratio,
            health.head_ratio_level(ratio),
            ratio is not None and ratio < 1,
            ratio_blocks(ratio),
        ),
        "state": state.value,
        "state_level": STATES[state],
        "nan": latch_json(run.latches.heads.get((head, "nan")), history.latches.get(f"{head}/nan")),
        "inf": latch_json(run.latches.heads.get((head, "inf")), history.latches.get(f"{head}/inf")),
        "entropy_all_steps": number(reading.entropy_all),
        "learnable_fraction": number(reading.learnable_fraction),
        "clip_fraction": number(reading.clip_fraction),
        "kl": number(reading.kl),
    }


def trail_json(heads: Mapping[str, HeadUpdatePayload]) -> Json:
    """What one update reported of each head, by `TRAIL_COLUMNS`."""
    return {
        head: [
            short(_shown_entropy(found.entropy, found.learnable_fraction), TRAIL_DIGITS),
            short(found.grad_norm, TRAIL_DIGITS),
            short(found.ratio_max, TRAIL_DIGITS),
        ]
        for head, found in heads.items()
    }


def _trend_level(level: Level) -> str:
    return {Level.HEALTHY: "ok", Level.CRITICAL: "crit"}.get(level, "dim")


def footer_json(run: RunState) -> Json:
    """The gradient-flow line. The layer count is the run's, else the document's twelve."""
    tamiyo, update = run.snapshot.tamiyo, run.update
    if not tamiyo.ppo_data_received:
        empty: Json = {"cv": None, "cv_level": "none", "cv_word": "", "layers": None}
        return empty | {
            name: {"value": None, "level": "none"} for name in ("dead", "exploding", "nan", "inf")
        }
    cv = tamiyo.gradient_quality.gradient_cv
    cv_level = level_of(cv, health.gradient_cv_level(cv))
    by_layer = getattr(update, "grad_norm_per_layer", None) or tamiyo.layer_gradient_health
    dead, exploding = tamiyo.dead_layers, tamiyo.exploding_layers
    layers = len(by_layer) if by_layer else DOCUMENTED_LAYERS
    if max(dead or 0, exploding or 0) > layers:
        layers = 0
    return {
        "cv": number(cv),
        "cv_level": cv_level,
        "cv_word": CV_WORDS[cv_level],
        "layers": layers or None,
        "dead": _count(dead, "ok"),
        "exploding": _count(exploding, "ok"),
        "nan": _count(tamiyo.nan_grad_count, "dim"),
        "inf": _count(tamiyo.inf_grad_count, "dim"),
    }


def _count(count: int | None, clear: str) -> Json:
    level = level_of(count, health.count_level(count))
    return {"value": count, "level": clear if level == "ok" else level}
