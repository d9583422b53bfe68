"""The tables of the journal: one an event type, its columns read off our own payload classes.

Nothing else in this room looks into the contract for names and types: a field that the contract
gains is a column from then on.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.fields import TextFloat

Shape = str | list["Shape"] | dict[str, "Shape"]
"""A type for DuckDB's JSON functions: a type's name, [of elements], or {field: type}."""

ENVELOPE: dict[str, str] = {
    "event_id": "VARCHAR",
    "event_type": "VARCHAR",
    "timestamp": "VARCHAR",
    "seed_id": "VARCHAR",
    "slot_id": "VARCHAR",
    "epoch": "BIGINT",
    "group_id": "VARCHAR",
    "message": "VARCHAR",
    "severity": "VARCHAR",
}
"""The envelope of every event, as a line of telemetry spells it."""

_SCALARS: dict[Any, str] = {
    float: "DOUBLE",
    int: "BIGINT",
    bool: "BOOLEAN",
    str: "VARCHAR",
    TextFloat: "DOUBLE",
}
_UNSIGNED = frozenset({"rng_seed"})
"""Whole numbers of the full 64 bits."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a payload: its name, DuckDB type and unit ("" where it has none)."""

    name: str
    shape: Shape
    unit: str

    @property
    def sql(self) -> str:
        """The type in DuckDB's words."""
        return _sql(self.shape)


@dataclass(frozen=True, slots=True)
class Table:
    """One event type: its names, its columns, and the required ones."""

    type: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    required: tuple[str, ...]
    may_be_empty: bool

    @property
    def shape(self) -> str:
        """The payload as a type for DuckDB's JSON functions."""
        return json.dumps({column.name: column.shape for column in self.columns})

    @property
    def sql(self) -> str:
        """The payload's type in DuckDB's words."""
        return _sql({column.name: column.shape for column in self.columns})


_BESIDE: dict[str, dict[str, Shape]] = {
    "RewardComponentsTelemetry": {"shaped_reward_ratio": "DOUBLE"}
}
"""Columns that the trainer computes from other fields and writes into its files only."""

ENDED = "RUN_ENDED"
GPU_FAULT = "GPU_FAULT"
_OWN: dict[str, dict[str, str]] = {
    ENDED: {"reason": "VARCHAR", "detail": "VARCHAR", "exit_code": "BIGINT", "signal": "BIGINT"},
    GPU_FAULT: {"gpu": "VARCHAR", "uuid": "VARCHAR", "kind": "VARCHAR", "count": "BIGINT"},
}
"""The exporter's own records of a run, which a journal keeps beside the trainer's events."""


@cache
def tables() -> dict[str, Table]:
    """Every table by canonical event type."""
    own = {
        kind: Table(
            kind, (kind,), tuple(Column(name, sql, "") for name, sql in fields.items()), (), False
        )
        for kind, fields in _OWN.items()
    }
    return own | {
        kind: Table(
            kind,
            row.names,
            tuple(
                Column(name, _shape(name, hint), unit_of(name, hint))
                for name, hint in get_type_hints(row.payload).items()
            ),
            _required(row.payload),
            row.payload_optional,
        )
        for kind, row in TYPES.items()
    }


@cache
def table_of_name() -> dict[str, Table]:
    """Every table by each name of its events."""
    return {name: table for table in tables().values() for name in table.names}


def _required(payload: type) -> tuple[str, ...]:
    """The fields without a default, of a Struct or a dataclass."""
    if hasattr(payload, "__struct_fields__"):
        count = len(payload.__struct_fields__) - len(getattr(payload, "__struct_defaults__", ()))
        names = payload.__struct_fields__[:count]
        hints = get_type_hints(payload)
        return tuple(name for name in names if not _optional(hints[name]))
    from dataclasses import MISSING, fields

    hints = get_type_hints(payload)
    return tuple(
        field.name
        for field in fields(payload)
        if field.default is MISSING
        and field.default_factory is MISSING
        and not _optional(hints[field.name])
    )


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (typing.Union, types.UnionType) and type(None) in get_args(hint)


def _shape(name: str, hint: Any) -> Shape:
    if get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (typing.Union, types.UnionType):
        known = [arg for arg in get_args(hint) if arg is not types.NoneType]
        return _shape(name, known[0])
    if name in _UNSIGNED:
        return "UBIGINT"
    if get_origin(hint) is typing.Literal:
        hint = type(get_args(hint)[0])
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is None and isinstance(hint, type) and get_type_hints(hint):
        known_fields = {name: _shape(name, inner) for name, inner in get_type_hints(hint).items()}
        return known_fields | _BESIDE.get(hint.__name__, {})
    if origin in (tuple, list) and args and (origin is list or args[-1] is Ellipsis):
        inner = _shape("", args[0])
        return "JSON" if inner == "JSON" else [inner]
    if origin is dict:
        inner = _shape("", args[1])
        return f"MAP(VARCHAR, {inner})" if inner in _SCALARS.values() else "JSON"
    return "JSON"


def _sql(shape: Shape) -> str:
    if isinstance(shape, str):
        return shape
    if isinstance(shape, list):
        return f"{_sql(shape[0])}[]"
    return "STRUCT(" + ", ".join(f'"{name}" {_sql(each)}' for name, each in shape.items()) + ")"


_ENDINGS = (
    ("_ms", "milliseconds"),
    ("_gb", "GiB"),
    ("_bytes", "bytes"),
    ("_celsius", "degrees Celsius"),
    ("_kl", "nats"),
    ("_ratio", "ratio"),
    ("_fraction", "ratio, 0 to 1"),
    ("_confidence", "probability, 0 to 1"),
    ("_accuracy", "percent"),
    ("_acc", "percent"),
    ("_accuracies", "percent"),
    ("_entropy", "share of the maximum, 0 to 1"),
    ("_percent", "percent"),
    ("_epochs", "epochs"),
    ("_params", "parameters"),
    ("_count", "count"),
    ("_norm", "L2 norm"),
)
_UNITS = {
    "entropy": "nats, weighted sum over the heads",
    "kl_divergence": "nats",
    "approx_kl_max": "nats",
    "kl_reverse": "nats",
    "clip_fraction": "ratio, 0 to 1",
    "accuracy": "percent",
    "accuracy_delta": "percent points",
    "improvement": "percent points",
    "drop_percent": "percent",
    "lr": "per update",
    "fps": "per second",
    "outlier_pct": "ratio, 0 to 1",
    "near_clip_pct": "ratio, 0 to 1",
    "clip_pct": "ratio, 0 to 1",
    "nan_pct": "ratio, 0 to 1",
    "inf_pct": "ratio, 0 to 1",
    "param_budget": "parameters",
    "params": "parameters",
    "params_added": "parameters",
    "gpu_utilization_pct": "percent",
    "log_prob_min": "nats",
    "log_prob_max": "nats",
    "head_entropy_nats": "nats",
    "counterfactual": "percent points",
    "blending_delta": "percent points",
    "base_acc_delta": "percent points",
}


def unit_of(name: str, hint: Any = float) -> str:
    """The unit of a field in an event (events have the trainer's units, not base units)."""
    if name in _UNITS:
        return _UNITS[name]
    if hint in (bool, str):
        return ""
    return next((unit for ending, unit in _ENDINGS if name.endswith(ending)), "")
