"""The border: whatever is handed in becomes an Event of ours, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any

from msgspec.structs import force_setattr

from esper_exporter.contract.event_table import BY_NAME
from esper_exporter.contract.events import DEFAULT_GROUP, Event
from esper_exporter.contract.fast_path import NO_OBJECTS
from esper_exporter.contract.payload_schema import plan_of, read_payload
from esper_exporter.contract.rejection import (
    INVALID_VALUE,
    MALFORMED,
    MISSING_FIELD,
    UNKNOWN_TYPE,
    Rejected,
)
from esper_exporter.contract.scalars import (
    MAX_LABEL,
    InvalidValue,
    WrongType,
    free_text,
    moment,
    name,
    whole,
)
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.contract.vocabulary import OPS

_MAX_SECONDS = 253_402_300_799.0  # the last second of the year 9999
_label = name()
_whole = whole(-(2**63), 2**63 - 1)
_Q_OF_OP = {
    "WAIT": "q_wait",
    "GERMINATE": "q_germinate",
    "SET_ALPHA_TARGET": "q_set_alpha",
    "PRUNE": "q_prune",
    "FOSSILIZE": "q_fossilize",
    "ADVANCE": "q_advance",
}
_q_values = attrgetter(*(_Q_OF_OP[op] for op in OPS))
_ENVELOPE = (
    *("event_type", "timestamp", "event_id", "group_id", "seed_id", "slot_id"),
    *("severity", "epoch", "message", "data"),
)
_envelope_of = attrgetter(*_ENVELOPE)

Now = Callable[[], datetime]


def read(obj: object, now: Now) -> Event:
    """One event from a live esper event (by attribute) or its dict form.

    ``now`` stands in for a timestamp that is missing or makes no sense. Raises Rejected, and
    nothing else, for what is no usable event.
    """
    try:
        return _read(obj, now)
    except Rejected:
        raise
    except Exception as problem:
        # Foreign objects may raise anything when they are looked at.
        raise Rejected(MALFORMED, f"reading it raised {type(problem).__name__}") from None


def _read(obj: object, now: Now) -> Event:
    if isinstance(obj, Mapping):
        get: Callable[[str], Any] = obj.get
    elif obj is None or isinstance(obj, NO_OBJECTS):
        raise Rejected(MALFORMED, f"an event was expected, got {type(obj).__name__[:64]}")
    else:
        get = _attributes(obj)
    event_name = _event_name(get("event_type"))
    kind = BY_NAME[event_name]
    ignored: list[str] = []
    envelope, misplaced = _envelope(get, now, event_name, ignored)
    data = get("data")
    if data is None:
        if not kind.payload_optional:
            raise Rejected(MISSING_FIELD, "data", event_name)
        if misplaced is not None:
            raise misplaced
        return _event(event_name, kind.name, None, ignored, envelope)
    if isinstance(data, NO_OBJECTS):
        raise Rejected(MALFORMED, f"data is a {type(data).__name__[:64]}", event_name)
    plan = plan_of(kind.payload)
    try:
        payload = read_payload(plan, data, ignored)
        if misplaced is not None:
            raise misplaced
    except Rejected as refused:
        refused.event_name = event_name
        if kind.reports_faults:
            saved = read_payload(plan, data, [], lenient=True)
            if _tells_of_a_fault(saved):
                refused.event = _event(event_name, kind.name, saved, [], envelope)
        raise
    if type(payload) is TamiyoPolicyUpdatePayload:
        _fill_aliases(payload)
    return _event(event_name, kind.name, payload, ignored, envelope)


def _attributes(obj: object) -> Callable[[str], Any]:
    """Look-up of an event's own fields: all at once where it has them all, as esper's events do."""
    try:
        return dict(zip(_ENVELOPE, _envelope_of(obj), strict=True)).get
    except AttributeError:
        return lambda wanted: getattr(obj, wanted, None)


def _tells_of_a_fault(saved: Any) -> bool:
    """Whether a payload, complete or not, says what was not finite."""
    if isinstance(saved, TamiyoPolicyUpdatePayload):
        told = (saved.head_nan_detected or {}, saved.head_inf_detected or {})
        return any(up for flags in told for up in flags.values())
    return bool(saved.detail) and (saved.anomaly_type or "").startswith("ppo_finiteness_")


def _event(
    name_told: str, kind: str, data: Any, ignored: list[str], envelope: dict[str, Any]
) -> Event:
    return Event(
        name=name_told,
        type=kind,
        data=data,
        ignored=tuple(dict.fromkeys(ignored)) if ignored else (),
        **envelope,
    )


def _event_name(raw: Any) -> str:
    if isinstance(raw, Enum):
        raw = raw.name
    if raw is None:
        raise Rejected(MALFORMED, "there is no event_type")
    if type(raw) is not str:
        raise Rejected(MALFORMED, f"event_type is a {type(raw).__name__[:64]}")
    if raw not in BY_NAME:
        raise Rejected(UNKNOWN_TYPE, "not a type of either age of the contract", raw[:256])
    return raw


def _envelope(
    get: Callable[[str], Any], now: Now, event: str, ignored: list[str]
) -> tuple[dict[str, Any], Rejected | None]:
    misplaced: Rejected | None = None
    found: dict[str, Any] = {"timestamp": _timestamp(get("timestamp"), now, ignored)}
    for field in ("event_id", "group_id", "seed_id", "slot_id", "severity"):
        raw = get(field)
        value = None
        if type(raw) is str and len(raw) <= MAX_LABEL and raw.isascii():
            value = raw
        elif raw is not None:
            try:
                value = _label(raw, field, ignored)
            except WrongType:
                ignored.append(field)
            except InvalidValue as problem:
                # Without its slot or group the event cannot be attributed to the right thing.
                if field in ("group_id", "slot_id"):
                    misplaced = Rejected(INVALID_VALUE, f"{field}: {problem}", event)
                ignored.append(field)
        found[field] = value
    found["group_id"] = found["group_id"] or DEFAULT_GROUP
    found["severity"] = found["severity"] or "info"
    found["epoch"] = _optional(get("epoch"), _whole, "epoch", ignored)
    found["message"] = _optional(get("message"), free_text, "message", ignored) or ""
    return found, misplaced


def _optional(raw: Any, convert: Callable[..., Any], field: str, ignored: list[str]) -> Any:
    if raw is None:
        return None
    try:
        return convert(raw, field, ignored)
    except (WrongType, InvalidValue):
        ignored.append(field)
        return None


def _timestamp(raw: Any, now: Now, ignored: list[str]) -> datetime:
    """An aware UTC time: from a datetime, ISO text (naive: UTC) or unix seconds."""
    try:
        if type(raw) in (int, float) and 0 <= raw <= _MAX_SECONDS:
            return datetime.fromtimestamp(raw, UTC)
        return moment(raw, "timestamp", ignored)
    except Exception:
        pass  # out of range, no time at all, or a time zone that raises
    ignored.append("timestamp")
    return now()


def _fill_aliases(payload: TamiyoPolicyUpdatePayload) -> None:
    """What the other age calls by another name."""
    if payload.ppo_update_idx is None and payload.ppo_updates_count is not None:
        force_setattr(payload, "ppo_update_idx", payload.ppo_updates_count)
    if payload.op_q_values is None:
        told = _q_values(payload)
        if None not in told:
            force_setattr(payload, "op_q_values", told)
