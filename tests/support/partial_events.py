"""Generated runs: any events, each with its required fields and any of the others."""

from __future__ import annotations

import inspect
import types
import typing
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.vocabulary import (
    BLUEPRINTS,
    GRAD_SCALER_STATES,
    GRADIENT_STATES,
    HEADS,
    OPS,
    STAGES,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SLOTS = ("r0c0", "r0c1")

WORDS: dict[str, tuple[str, ...]] = {
    "slot_id": SLOTS,
    "blueprint_id": BLUEPRINTS[:3],
    "stage": STAGES,
    "from_stage": STAGES,
    "to_stage": STAGES,
    "action_name": OPS,
    "kind": ("last_action", "batch_stats", "shapley_computed", "action_distribution"),
    "grad_scaler_state": GRAD_SCALER_STATES,
    "gate": ("G0", "G1"),
    "anomaly_type": ("ratio_explosion", "ppo_finiteness_skip", "update_skipped", "nonfinite"),
    "outcome_type": ("success", "timeout"),
    "policy_device": ("cpu", "cuda:0"),
    "device": ("cuda:0",),
}
"""Texts that mean something; any other text is one of a few words."""

KEYS: dict[str, tuple[str, ...]] = {
    "seeds": SLOTS,
    "shapley_values": SLOTS,
    "slot_states": SLOTS,
    "action_counts": OPS,
    "op_distribution": OPS,
    "head_nan_detected": HEADS,
    "head_inf_detected": HEADS,
    "head_entropy_nats": HEADS,
    "head_kl_after_update": HEADS,
    "head_updates": ("mine", "other"),
    "phases": ("train", "val"),
    "phase_times_ms": ("forward", "backward"),
}
LEFT_OUT = frozenset({"action_heads", "not_measured", "rank"})
"""What changes what the other fields mean; tests of their own set it."""


@cache
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(kind)
    parameters = inspect.signature(kind).parameters
    return tuple(
        (name, hints[name], parameter.default is inspect.Parameter.empty)
        for name, parameter in parameters.items()
        if name not in LEFT_OUT
    )


def _value(name: str, hint: Any, path: tuple[str, ...]) -> st.SearchStrategy[Any]:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _value(name, next(a for a in get_args(hint) if a is not type(None)), path)
    if origin is dict:
        keys = st.sampled_from(KEYS.get(name, ("a", "b")))
        if get_args(hint)[0] is int:
            keys = st.integers(0, 1)
        return st.dictionaries(keys, _value(name, get_args(hint)[1], path), max_size=2)
    if origin in (tuple, list):
        args = get_args(hint)
        if len(args) == 2 and args[1] is not Ellipsis:
            return st.tuples(*(_value(name, arg, path) for arg in args)).map(list)
        return _lengthy(name, st.lists(_value(name, args[0], path), min_size=1, max_size=3))
    if isinstance(hint, type) and hasattr(hint, "__annotations__") and hint.__annotations__:
        return payloads(hint, (*path, name))
    return _plain(name, hint)


def _lengthy(name: str, some: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if name == "op_q_values":
        return st.lists(_plain(name, float), min_size=len(OPS), max_size=len(OPS))
    if name == "op_valid_mask":
        return st.lists(st.booleans(), min_size=len(OPS), max_size=len(OPS))
    if name == "slot_ids":
        return st.just(list(SLOTS))
    return some


def _plain(name: str, hint: Any) -> st.SearchStrategy[Any]:
    if name == "env_id":
        return st.integers(0, 1)
    if name.endswith("gradient_state"):
        return st.sampled_from(GRADIENT_STATES)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 9)
    if hint is float:
        return st.integers(1, 999).map(lambda number: number / 16)
    if hint is str:
        return st.sampled_from(WORDS.get(name, ("alpha", "beta")))
    return st.just({"a": 1})


def payloads(kind: type, path: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads of a class: its required fields, and any of the others."""
    required = {name: _value(name, hint, path) for name, hint, must in _fields(kind) if must}
    optional = {name: _value(name, hint, path) for name, hint, must in _fields(kind) if not must}
    return st.fixed_dictionaries(required, optional=optional)


@cache
def events_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Events of a type, at noon."""
    return st.fixed_dictionaries(
        {"event_type": st.just(name), "data": payloads(TYPES[name].payload)},
        optional={"epoch": st.integers(1, 9), "slot_id": st.sampled_from(SLOTS)},
    )


COMMON = (
    "TAMIYO_POLICY_UPDATE",
    "TOLARIA_EPOCH_COMPLETED",
    "TOLARIA_BATCH_COMPLETED",
    "ANALYTICS_SNAPSHOT",
    "SEED_GERMINATED",
    "SEED_STAGE_CHANGED",
)


@st.composite
def partial_runs(draw: st.DrawFn, most: int = 20) -> list[dict[str, Any]]:
    """The events of a run, each a second after the one before; TRAINING_STARTED may be missing."""
    begun = draw(st.booleans())
    names = st.sampled_from(COMMON) | st.sampled_from(sorted(TYPES.keys() - {"TRAINING_STARTED"}))
    chosen = draw(st.lists(names, min_size=1, max_size=most))
    if begun:
        chosen.insert(0, "TRAINING_STARTED")
    return [
        {**draw(events_of(name)), "timestamp": NOON + timedelta(seconds=place)}
        for place, name in enumerate(chosen)
    ]
