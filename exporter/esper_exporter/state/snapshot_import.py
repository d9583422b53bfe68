"""An aggregated snapshot from elsewhere: read by attribute or by key, then put into a run's state.

Reading calls foreign code; it needs no state. A value that cannot be read, or that makes no sense,
costs only its own field.
"""

from __future__ import annotations

import math
import types
import typing
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from esper_exporter.contract.composites import MAX_ENTRIES, elements, number_key, pairs
from esper_exporter.contract.scalars import (
    MAX_LABEL,
    Converter,
    encodable,
    flag,
    moment,
    real,
    string,
    whole,
    wrong,
)
from esper_exporter.contract.vocabulary import HEADS, OTHER, SPELLINGS
from esper_exporter.state import counted
from esper_exporter.state.decision import DecisionSnapshot
from esper_exporter.state.head_state import HEAD_VIEW, HeadState
from esper_exporter.state.policy import TamiyoState
from esper_exporter.state.run import MAX_ENVS, RunState
from esper_exporter.state.snapshot import SanctumSnapshot
from esper_exporter.state.torch_memory import of_update
from esper_exporter.state.unreported import numbers

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_UNKNOWN = object()
"""Stands for a value that is absent or could not be read."""

_KEEP_DEFAULT = frozenset(
    {"cumulative_germinated", "cumulative_fossilized", "cumulative_pruned", "focused_env_id"}
    | {"total_actions", "cumulative_total_actions", "runtime_seconds", "staleness_seconds"}
    | {"total_events_received", "ppo_data_received"}
    | {"_previous_risk", "env_id", "throughput_present", "current_episode", "current_epoch"}
    | {"current_batch", "max_batches", "max_epochs", "batch_total_episodes"}
)
"""What the aggregator counts itself, from 0, flags that say what else there is, and the run's
progress, of which 0 says "not known"."""

_COUNTED = (
    ("cumulative_blueprint_spawns", counted.GERMINATIONS),
    ("cumulative_blueprint_fossilized", counted.FOSSILIZATIONS),
    ("cumulative_blueprint_prunes", counted.PRUNES),
)


@dataclass(frozen=True, slots=True)
class SnapshotImport:
    """A snapshot that was read: our own types only."""

    snapshot: SanctumSnapshot
    run_id: str
    """The run's own id, cut at 256 characters; empty when it has none."""
    group_id: str | None
    started_at: datetime | None
    environments_dropped: int
    """Environments beyond the limit of 1,024."""
    ignored: tuple[str, ...]
    """Fields that were left out or cut, once for each value."""


def read_snapshot(source: object, group_id: str | None) -> SnapshotImport:
    """Read a SanctumSnapshot, an object or its dict form; ``group_id`` overrides its own group.

    Raises nothing. A number that is missing, raises or makes no sense is None: the schema's
    default would look like a measurement. Other fields keep it.
    """
    ignored: list[str] = []
    snapshot: SanctumSnapshot = _record(SanctumSnapshot)(source, "", ignored)
    known = len(snapshot.envs)
    for env_id in list(snapshot.envs)[MAX_ENVS:]:
        del snapshot.envs[env_id]
    # Mappings are read up to a limit, so a longer one is asked for its length.
    environments = max(known, _length(_look(source, "envs", [])))
    group: str | None = None
    if group_id is not None:
        group = _guarded(_text, group_id, "group_id", ignored, None)
    return SnapshotImport(
        snapshot=snapshot,
        run_id=snapshot.run_id,
        group_id=group or snapshot.tamiyo.group_id or None,
        started_at=snapshot.start_time,
        environments_dropped=max(0, environments - MAX_ENVS),
        ignored=tuple(ignored),
    )


def apply_snapshot(run: RunState, snapshot: SanctumSnapshot, now: datetime) -> None:
    """Replace the run's snapshot by one that was read, and light the latches it shows.

    Counters follow its cumulative counts and never fall.
    """
    run.held_updates.clear()
    run.held_decisions.clear()
    run.bare_snapshot = snapshot
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
    touched.observations = touched.best_runs = touched.all_envs = True
    touched.policy = snapshot.tamiyo.ppo_data_received
    touched.layers = True
    touched.summary = False
    run.observed = True
    run.see_memory(of_update(snapshot.tamiyo.infrastructure))


def _guarded(
    convert: Converter, raw: Any, path: str, ignored: list[str], otherwise: Any = _UNKNOWN
) -> Any:
    """What a converter makes of a value; where it raises, the path is noted as ignored."""
    try:
        return convert(raw, path, ignored)
    except Exception:
        ignored.append(path)
        return otherwise


def _look(source: object, name: str, ignored: list[str]) -> Any:
    try:
        if isinstance(source, Mapping):
            return source.get(name, _UNKNOWN)
        return getattr(source, name, _UNKNOWN)
    except Exception:
        ignored.append(name)
        return _UNKNOWN


def _length(mapping: Any) -> int:
    try:
        return len(mapping)
    except Exception:
        return 0


def _empty(hint: Any) -> Any:
    kind = get_origin(hint) or hint
    return {str: "", int: 0, float: math.nan, dict: {}, list: [], tuple: ()}.get(kind)


# -- one converter a type hint --------------------------------------------------------------


@cache
def _record(kind: type) -> Converter:
    """Converter for one of our dataclasses, from an object or mapping with the same fields."""
    hints = get_type_hints(kind)
    converters = [(field, _converter(hints[field.name])) for field in fields(kind)]
    absent = frozenset(numbers(kind)) - _KEEP_DEFAULT
    read_own = _OWN_READERS.get(kind, {})

    def convert(raw: Any, path: str, ignored: list[str]) -> Any:
        if raw is None or isinstance(raw, str | bytes | int | float):
            raise wrong(f"a {kind.__name__}", raw)
        values: dict[str, Any] = {}
        for field, convert_field in converters:
            if field.name in read_own:
                values[field.name] = read_own[field.name](raw, ignored)
                continue
            value = _look(raw, field.name, ignored)
            if value is not _UNKNOWN:
                # Null is not reported: the aggregator has nothing to say there.
                noted = ignored if value is not None else []
                value = _guarded(convert_field, value, field.name, noted)
            if value is not _UNKNOWN:
                values[field.name] = value
            elif field.name in absent:
                values[field.name] = None
            elif is_dataclass(hints[field.name]):
                values[field.name] = convert_field({}, field.name, [])
            elif field.default is MISSING and field.default_factory is MISSING:
                values[field.name] = _empty(hints[field.name])
        return kind(**values)

    return convert


def _read_heads(source: object, ignored: list[str]) -> dict[str, HeadState]:
    """The heads of a foreign TamiyoState, which spells them ``head_{name}_{field}``."""
    heads: dict[str, HeadState] = {}
    for name, (head, field) in HEAD_VIEW.items():
        value = _look(source, name, ignored)
        if value is not _UNKNOWN and value is not None:
            value = _guarded(_HEAD_FIELDS[field], value, name, ignored, None)
            setattr(heads.setdefault(head, HeadState()), field, value)
    return heads


def _read_choices(source: object, ignored: list[str]) -> dict[str, str]:
    """What each head chose in a foreign decision, which spells it ``chosen_{head}``."""
    found = {
        head: _look(source, f"chosen_{spelled}", ignored)
        for head, spelled in SPELLINGS.items()
        if head != "op"
    }
    return {
        head: _guarded(_text, value, f"chosen_{SPELLINGS[head]}", ignored, OTHER)
        for head, value in found.items()
        if value is not None and value is not _UNKNOWN
    }


def _read_confidences(source: object, ignored: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for head, spelled in SPELLINGS.items():
        value = _look(source, f"{spelled}_confidence", ignored)
        if value is not None and value is not _UNKNOWN:
            value = _guarded(_number, value, f"{spelled}_confidence", ignored)
        if value is not None and value is not _UNKNOWN:
            found[head] = value
    return found


_OWN_READERS: dict[type, dict[str, Callable[[object, list[str]], Any]]] = {
    TamiyoState: {"heads": _read_heads},
    DecisionSnapshot: {"choices": _read_choices, "confidences": _read_confidences},
}
"""Fields that another state spells otherwise than one name a field."""


def _converter(hint: Any) -> Converter:
    scalars: dict[Any, Converter] = {
        float: _number,
        int: whole(-(2**63), 2**64 - 1),
        bool: flag,
        str: _text,
        datetime: moment,
    }
    if hint in scalars:
        return scalars[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _any_of(args)
    if origin is dict:
        return _mapping(args[0], _converter(args[1]))
    if origin is tuple and args[-1] is not Ellipsis:
        return _fixed([_converter(each) for each in args])
    if origin in (list, deque, tuple):
        return _sequence(origin, _converter(args[0]))
    raise TypeError(f"no way to read {hint} from a snapshot")


def _number(raw: Any, path: str, ignored: list[str]) -> float:
    if type(raw) is str and raw in _NUMBERS:
        return _NUMBERS[raw]
    return real(raw, path, ignored)


def _text(raw: Any, path: str, ignored: list[str]) -> str:
    text = string(raw)
    if len(text) > MAX_LABEL:
        # It may become a label, and a label is on every line of the page.
        ignored.append(path)
    return encodable(text[:MAX_LABEL])


def _any_of(hints: tuple[Any, ...]) -> Converter:
    converters = [_converter(hint) for hint in hints if hint is not types.NoneType]
    optional = types.NoneType in hints

    def convert(raw: Any, path: str, ignored: list[str]) -> Any:
        if raw is None and optional:
            return None
        problem: Exception = wrong("a value", raw)
        for each in converters:
            try:
                return each(raw, path, ignored)
            except Exception as failed:
                problem = failed
        raise problem

    return convert


def _mapping(key_hint: Any, item: Converter) -> Converter:
    key = number_key if key_hint is int else _text

    def convert(raw: Any, path: str, ignored: list[str]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for count, (raw_key, raw_item) in enumerate(pairs(raw)):
            if count == MAX_ENTRIES:
                ignored.append(path)
                break
            found = _guarded(key, raw_key, path, ignored)
            value = _guarded(item, raw_item, path, ignored)
            if found is not _UNKNOWN and value is not _UNKNOWN:
                made[found] = value
        return made

    return convert


def _fixed(items: list[Converter]) -> Converter:
    def convert(raw: Any, path: str, ignored: list[str]) -> tuple[Any, ...]:
        parts = zip(items, _parts(raw), strict=False)
        return tuple([item(part, path, ignored) for item, part in parts])

    return convert


def _sequence(kind: Any, item: Converter) -> Converter:
    def convert(raw: Any, path: str, ignored: list[str]) -> Any:
        made = []
        for part in _parts(raw)[:MAX_ENTRIES]:
            value = _guarded(item, part, path, ignored)
            if value is not _UNKNOWN:
                made.append(value)
        if kind is deque:
            return deque(made, maxlen=deque.maxlen.__get__(raw) if _is_deque(raw) else None)
        return tuple(made) if kind is tuple else made

    return convert


def _is_deque(raw: Any) -> bool:
    return issubclass(type(raw), deque)


def _parts(raw: Any) -> list[Any]:
    return list(deque.__iter__(raw)) if _is_deque(raw) else elements(raw)


_HEAD_FIELDS = {name: _converter(hint) for name, hint in get_type_hints(HeadState).items()}
