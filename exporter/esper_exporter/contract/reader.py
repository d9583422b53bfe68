"""The border: any input becomes an Event, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import force_setattr

from esper_exporter.contract.event_table import BY_NAME, TYPES
from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.events import DEFAULT_GROUP, Event
from esper_exporter.contract.fast_path import (
    MAX_CLASSES,
    FastPlan,
    fast_plan_of,
    prepare,
    read_at_once,
)
from esper_exporter.contract.payload_schema import plan_of, read_fields
from esper_exporter.contract.rejection import (
    INVALID_VALUE,
    MALFORMED,
    MISSING_FIELD,
    UNKNOWN_TYPE,
    Rejected,
)
from esper_exporter.contract.scalars import (
    MAX_LABEL,
    MAX_TEXT,
    InvalidValue,
    WrongType,
    free_text,
    moment,
    name,
    whole,
)
from esper_exporter.contract.stored_values import NO_OBJECTS, only_stores
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
_envelope_in = itemgetter(*_ENVELOPE)
_plain_envelopes: dict[type, bool] = {}
"""Class of a live event → whether its attributes are only stored."""

Now = Callable[[], datetime]

_Envelope = tuple[datetime, str | None, str, str | None, str | None, int | None, str, str]
"""The values of an `Event` from ``timestamp`` to ``severity``."""


def read_plainly(obj: Any) -> Event | None:
    """An event whose every value is plainly what the contract says; None for any other.

    It calls no foreign code and raises nothing. Gives what `read` gives.
    """
    try:
        kind = type(obj)
        if kind is dict:
            raw = _envelope_in(obj)
        elif _plain_envelopes[kind]:
            raw = _envelope_of(obj)
        else:
            return None
        sent_name, when, event_id, group_id, seed_id, slot_id, severity, epoch, message, data = raw
        if type(sent_name) is not str:
            sent_name = sent_name._name_ if issubclass(type(sent_name), Enum) else None
        try:
            name_now, plan, of_update = _ways[sent_name]
        except KeyError:
            name_now, plan, of_update = _way(BY_NAME[sent_name], sent_name)
        if not type(event_id) is type(group_id) is type(severity) is type(message) is str:
            return None
        texts = f"{event_id}{group_id}{severity}{message}"
        if slot_id is not None:
            if type(slot_id) is not str:
                return None
            texts += slot_id
        if seed_id is not None:
            if type(seed_id) is not str:
                return None
            texts += seed_id
        if len(texts) > MAX_LABEL or not texts.isascii():
            return None
        if epoch is not None and not (type(epoch) is int and -(2**63) <= epoch < 2**63):
            return None
        if type(when) is str:
            when = datetime.fromisoformat(when)
        if type(when) is not datetime or when.tzinfo is not UTC or when.year < 1970:
            return None
        kind = type(data)
        if kind is dict:
            payload = plan.read_dict(data)
        else:
            get = plan.getters.get(kind) or plan.getter(kind)
            payload = plan.read_stored(get(data))
    except Exception:
        return None
    if payload is None:
        return None
    if of_update:
        _fill_aliases(payload)
    return Event(
        sent_name,
        name_now,
        when,
        event_id,
        group_id or DEFAULT_GROUP,
        seed_id,
        slot_id,
        epoch,
        message,
        severity or "info",
        payload,
    )


_ways: dict[str, tuple[str, FastPlan, bool]] = {}
"""By name of an event: its present name, how its payload is read, whether that has aliases."""


def _way(row: EventType, sent_name: str) -> tuple[str, FastPlan, bool]:
    found = row.name, fast_plan_of(row.payload), row.payload is TamiyoPolicyUpdatePayload
    _ways[sent_name] = found
    return found


def prepare_reading() -> None:
    """Work out how every type of event is read: at its first event that would take a training a
    millisecond."""
    if not _ways:
        prepare(row.payload for row in TYPES.values())
        for sent_name, row in BY_NAME.items():
            _way(row, sent_name)


def _note_envelope(kind: type) -> None:
    """Remember of a class of live events whether reading its attributes calls no foreign code."""
    if kind not in _plain_envelopes and len(_plain_envelopes) < MAX_CLASSES:
        _plain_envelopes[kind] = only_stores(kind, _ENVELOPE)


def read(obj: object, now: Now) -> Event:
    """One event from a live esper event (by attribute) or its dict form.

    ``now`` replaces a timestamp that is missing or makes no sense. Raises Rejected, and
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
    raw = _envelope_values(obj)
    sent, data = raw[0], raw[-1]
    event_name = sent if type(sent) is str and sent in BY_NAME else _event_name(sent)
    kind = BY_NAME[event_name]
    ignored: list[str] = []
    envelope, misplaced = _envelope(raw, now, event_name, ignored)
    if data is None:
        if not kind.payload_optional:
            raise Rejected(MISSING_FIELD, "data", event_name)
        if misplaced is not None:
            raise misplaced
        return _event(event_name, kind.name, envelope, None, ignored)
    if isinstance(data, NO_OBJECTS):
        raise Rejected(MALFORMED, f"data is a {type(data).__name__[:64]}", event_name)
    payload = read_at_once(kind.payload, data)
    if payload is None or misplaced is not None:
        plan = plan_of(kind.payload)
        try:
            if payload is None:
                payload = read_fields(plan, data, ignored)
            if misplaced is not None:
                raise misplaced
        except Rejected as refused:
            refused.event_name = event_name
            if kind.reports_faults:
                saved = read_fields(plan, data, [], lenient=True)
                if _reports_fault(saved):
                    refused.event = _event(event_name, kind.name, envelope, saved, [])
            raise
    if type(payload) is TamiyoPolicyUpdatePayload:
        _fill_aliases(payload)
    return _event(event_name, kind.name, envelope, payload, ignored)


def _envelope_values(obj: object) -> Sequence[Any]:
    """An event's own fields in the order of `_ENVELOPE`, None for those that it lacks."""
    if type(obj) is dict or isinstance(obj, Mapping):
        return list(map(obj.get, _ENVELOPE))
    if obj is None or isinstance(obj, NO_OBJECTS):
        raise Rejected(MALFORMED, f"an event was expected, got {type(obj).__name__[:64]}")
    try:
        found: tuple[Any, ...] = _envelope_of(obj)
        _note_envelope(type(obj))
        return found
    except AttributeError:
        return [getattr(obj, wanted, None) for wanted in _ENVELOPE]


def _reports_fault(saved: Any) -> bool:
    """Whether a payload, complete or not, says what was not finite."""
    if isinstance(saved, TamiyoPolicyUpdatePayload):
        flags_of = (saved.head_nan_detected or {}, saved.head_inf_detected or {})
        return any(up for flags in flags_of for up in flags.values())
    return bool(saved.detail) and (saved.anomaly_type or "").startswith("ppo_finiteness_")


def _event(sent_name: str, kind: str, envelope: _Envelope, data: Any, ignored: list[str]) -> Event:
    return Event(sent_name, kind, *envelope, data, tuple(dict.fromkeys(ignored)) if ignored else ())


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
    raw: Sequence[Any], now: Now, event: str, ignored: list[str]
) -> tuple[_Envelope, Rejected | None]:
    _, when, event_id, group_id, seed_id, slot_id, severity, epoch, message, _ = raw
    timestamp = _timestamp(when, now, ignored)
    for text in (event_id, group_id, seed_id, slot_id, severity):
        if text is not None and (
            type(text) is not str or len(text) > MAX_LABEL or not text.isascii()
        ):
            break
    else:
        if (
            message is None
            or (type(message) is str and len(message) <= MAX_TEXT and message.isascii())
        ) and (epoch is None or (type(epoch) is int and -(2**63) <= epoch < 2**63)):
            return (
                *(timestamp, event_id, group_id or DEFAULT_GROUP, seed_id, slot_id),
                *(epoch, message or "", severity or "info"),
            ), None
    return _envelope_by_field(raw, timestamp, event, ignored)


def _envelope_by_field(
    raw: Sequence[Any], timestamp: datetime, event: str, ignored: list[str]
) -> tuple[_Envelope, Rejected | None]:
    """As `_envelope`, each field with its converter: a bad value costs only its own field."""
    misplaced: Rejected | None = None
    given = dict(zip(_ENVELOPE, raw, strict=True))
    found: dict[str, str | None] = {}
    for field in ("event_id", "group_id", "seed_id", "slot_id", "severity"):
        value = None
        if given[field] is not None:
            try:
                value = _label(given[field], field, ignored)
            except WrongType:
                ignored.append(field)
            except InvalidValue as problem:
                # Without its slot or group the event cannot be attributed to the right thing.
                if field in ("group_id", "slot_id"):
                    misplaced = Rejected(INVALID_VALUE, f"{field}: {problem}", event)
                ignored.append(field)
        found[field] = value
    epoch = _optional(given["epoch"], _whole, "epoch", ignored)
    message = _optional(given["message"], free_text, "message", ignored)
    return (
        *(timestamp, found["event_id"], found["group_id"] or DEFAULT_GROUP, found["seed_id"]),
        *(found["slot_id"], epoch, message or "", found["severity"] or "info"),
    ), misplaced


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
        kind = type(raw)
        found = datetime.fromisoformat(raw) if kind is str else raw
        if type(found) is datetime and found.tzinfo is UTC and found.year >= 1970:
            return found
        if kind in (int, float) and 0 <= raw <= _MAX_SECONDS:
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
        q_values = _q_values(payload)
        if None not in q_values:
            force_setattr(payload, "op_q_values", q_values)
