"""A SanctumSnapshot from elsewhere into a run's state: by attribute or by key, nothing imported."""

from __future__ import annotations

import math
import types
import typing
from collections import deque
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from typing import Any, get_args, get_origin, get_type_hints

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.state import counted
from esper_exporter.state.run import MAX_ENVS, RunState
from esper_exporter.state.snapshot import SanctumSnapshot
from esper_exporter.state.torch_memory import see_update

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MISSING = object()
_HINTS: dict[type, dict[str, Any]] = {}

_COUNTED = (
    ("cumulative_blueprint_spawns", counted.GERMINATIONS),
    ("cumulative_blueprint_fossilized", counted.FOSSILIZATIONS),
    ("cumulative_blueprint_prunes", counted.PRUNES),
)


def take_snapshot(run: RunState, told: object, now: datetime) -> None:
    """Replace the run's snapshot by one from elsewhere, and light the latches it shows.

    Counters follow its cumulative counts and never fall. What it does not have, and what is of
    the wrong type, keeps the schema's default.
    """
    snapshot = build(SanctumSnapshot, told)
    for env_id in list(snapshot.envs)[MAX_ENVS:]:
        del snapshot.envs[env_id]
    run.snapshot = snapshot
    run.given = True
    run.last_event_at = now
    run.started_at = snapshot.start_time
    attempt = run.begin_attempt("snapshot")
    for head in HEADS:
        if snapshot.tamiyo.head_nan_latch.get(head) and not run.latches.heads[head, "nan"].lit:
            run.latches.light_head(head, "nan", now, attempt)
        if snapshot.tamiyo.head_inf_latch.get(head) and not run.latches.heads[head, "inf"].lit:
            run.latches.light_head(head, "inf", now, attempt)
    for source, name in _COUNTED:
        for blueprint, count in getattr(snapshot, source).items():
            more = count - run.tallies.get(name, blueprint)
            if more > 0:
                run.tallies.add(name, blueprint, by=float(more))
    touched = run.touched
    touched.run = touched.observations = touched.best_runs = touched.all_envs = True
    touched.policy = snapshot.tamiyo.ppo_data_received
    touched.layers = True
    touched.summary = False
    run.observed = True
    see_update(run)


def build(kind: type, told: object) -> Any:
    """A dataclass of ours from a foreign object or mapping with the same fields."""
    hints = _HINTS.get(kind)
    if hints is None:
        hints = _HINTS[kind] = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):
        raw = _get(told, field.name)
        value = _MISSING if raw is _MISSING else convert(hints[field.name], raw)
        if value is not _MISSING:
            values[field.name] = value
        elif field.default is MISSING and field.default_factory is MISSING:
            values[field.name] = _empty(hints[field.name])
    return kind(**values)


def _get(told: object, name: str) -> Any:
    if isinstance(told, Mapping):
        return told.get(name, _MISSING)
    return getattr(told, name, _MISSING)


def _empty(hint: Any) -> Any:
    kind = get_origin(hint) or hint
    return {str: "", int: 0, float: math.nan, dict: {}, list: [], tuple: ()}.get(kind)


def convert(hint: Any, raw: Any) -> Any:
    """A value as the type hint wants it, or ``_MISSING`` if it cannot be."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, raw)
    if is_dataclass(hint) and isinstance(hint, type):
        return _MISSING if raw is None or isinstance(raw, str | float) else build(hint, raw)
    if origin in (list, deque, tuple):
        return _convert_sequence(hint, origin, raw)
    if origin is dict:
        return _convert_mapping(hint, raw)
    return _convert_scalar(hint, raw)


def _convert_union(hint: Any, raw: Any) -> Any:
    choices = get_args(hint)
    if raw is None:
        return None if types.NoneType in choices else _MISSING
    for choice in choices:
        if choice is not types.NoneType:
            value = convert(choice, raw)
            if value is not _MISSING:
                return value
    return _MISSING


def _convert_sequence(hint: Any, origin: Any, raw: Any) -> Any:
    if not isinstance(raw, list | tuple | deque):
        return _MISSING
    args = get_args(hint)
    inner = args[0] if args else Any
    if origin is tuple and args and args[-1] is not Ellipsis:
        pairs = zip(args, raw, strict=False)
        return tuple(convert(each, item) for each, item in pairs)
    items = [value for item in raw if (value := convert(inner, item)) is not _MISSING]
    if origin is deque:
        return deque(items, maxlen=getattr(raw, "maxlen", None))
    return tuple(items) if origin is tuple else items


def _convert_mapping(hint: Any, raw: Any) -> Any:
    if not isinstance(raw, Mapping):
        return _MISSING
    key_kind, value_kind = get_args(hint)
    made: dict[Any, Any] = {}
    for key, item in raw.items():
        name = _convert_scalar(key_kind, int(key) if _is_number(key_kind, key) else key)
        value = convert(value_kind, item)
        if name is not _MISSING and value is not _MISSING:
            made[name] = value
    return made


def _is_number(kind: Any, key: object) -> bool:
    """JSON has only text for keys; an environment's number comes as text then."""
    return kind is int and isinstance(key, str) and key.isdecimal() and len(key) < 8


def _convert_scalar(kind: Any, raw: Any) -> Any:
    if kind is Any:
        return raw
    if kind is bool:
        return raw if isinstance(raw, bool) else _MISSING
    if kind is float:
        if isinstance(raw, str):
            return _NUMBERS.get(raw, _MISSING)
        return float(raw) if isinstance(raw, int | float) else _MISSING
    if kind is int:
        return int(raw) if isinstance(raw, int | float) and raw == raw // 1 else _MISSING
    if kind is str:
        return raw if isinstance(raw, str) else _MISSING
    if kind is datetime:
        if isinstance(raw, str):
            try:
                return datetime.fromisoformat(raw)
            except ValueError:
                return _MISSING
        return raw if isinstance(raw, datetime) else _MISSING
    return raw if isinstance(kind, type) and isinstance(raw, kind) else _MISSING
