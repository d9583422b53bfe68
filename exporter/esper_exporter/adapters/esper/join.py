"""Joins the measurements of an update with the trainer's own event, which comes later."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.log_once import Kinds

_log = logging.getLogger("esper_exporter")

Fields = dict[str, Any]
UpdateKey = tuple[str, int]
"""Group and batch, from 1: an update's event has no number."""
EpochKey = tuple[str, int, int]
"""Group, environment and inner epoch of a host's event."""

MOST_WAITING = 4096
UPDATE_EVENTS = frozenset({"PPO_UPDATE_COMPLETED", "TAMIYO_POLICY_UPDATE"})
EPOCH_EVENTS = frozenset({"EPOCH_COMPLETED", "TOLARIA_EPOCH_COMPLETED"})
BATCH_EVENTS = frozenset({"BATCH_EPOCH_COMPLETED", "TOLARIA_BATCH_COMPLETED"})
INSTABILITY = "NUMERICAL_INSTABILITY_DETECTED"

NEVER_FILLED = frozenset(
    {"entropy_loss", "advantage_min", "advantage_max", "advantage_raw_mean", "advantage_raw_std"}
    | {"loss_scale", "cuda_memory_allocated_gb", "cuda_memory_reserved_gb", "cuda_memory_peak_gb"}
)
"""Fields that the trainer's event has and leaves at 0: the measured values replace them."""

TOLERANCES: Mapping[str, float] = {
    "pre_clip_grad_norm": 1e-4,
    "return_mean": 1e-3,
    "td_error_mean": 1e-3,
    "value_loss": 1e-3,
    "policy_loss": 1e-3,
    "v_return_correlation": 1e-3,
    "pre_norm_advantage_std": 1e-2,
    **{f"head_{head}_clip_fraction": 1e-3 for head in HEADS},
}
"""Fields that both report and that mean the same; relative differences beyond float32's."""


@dataclass(slots=True)
class Measured:
    """One update's fields, and how the update ended as far as the probe saw."""

    fields: Fields
    outcome: str = "no_event"


class Joining:
    """The measurements that wait. Filled on the training thread, emptied on the hub's worker."""

    def __init__(self, disagreed: Callable[[str], None]) -> None:
        self._disagreed = disagreed
        self._arrive: Callable[[], None] = lambda: None
        self._infinite: dict[UpdateKey, frozenset[str]] = {}
        self._updates: dict[UpdateKey, Measured] = {}
        self._epochs: dict[EpochKey, Callable[[], Fields]] = {}
        self._lock = threading.Lock()
        self._kinds = Kinds()

    def wait_with(self, arrive: Callable[[], None]) -> None:
        """``arrive`` waits for what is on its way from a device and hands it over: called where an
        event, or the end of its batch, comes first."""
        self._arrive = arrive

    def infinite(self, key: UpdateKey, heads: Iterable[str]) -> None:
        """Heads whose logits were infinite in this update: their log-probabilities, which are all
        that the trainer looks at, are NaN for that reason."""
        with self._lock:
            _put(self._infinite, key, frozenset(heads))

    def update(self, key: UpdateKey, measured: Measured) -> None:
        """Keep an update's fields until its event comes."""
        with self._lock:
            _put(self._updates, key, measured)

    def ended(self, key: UpdateKey, outcome: str) -> None:
        """How an update ended, in case that no event comes: "raised" or "skipped"."""
        with self._lock:
            measured = self._updates.setdefault(key, Measured({}))
            measured.outcome = outcome

    def epoch(self, key: EpochKey, resolve: Callable[[], Fields]) -> None:
        """Keep a host epoch's fields; ``resolve`` gets them, and may wait for a device."""
        with self._lock:
            _put(self._epochs, key, resolve)

    def joined(self, name: object, event: Any) -> Any:
        """The event with what was measured of the same update or epoch: a dict, or the event
        itself where there is nothing to add."""
        data = getattr(event, "data", None)
        if data is None:
            return event
        if name in UPDATE_EVENTS:
            update = (event.group_id, data.batch)
            measured = self._taken(update)
            with self._lock:
                infinite = self._infinite.get(update, ())
            if measured is None:
                return event
            merged = self._merged(event, data, measured.fields)
            for field, seen in (("head_nan_detected", False), ("head_inf_detected", True)):
                if infinite and isinstance(merged["data"].get(field), Mapping):
                    merged["data"][field] = {
                        **merged["data"][field],
                        **dict.fromkeys(infinite, seen),
                    }
            return merged
        if name == INSTABILITY:
            return self._renamed(event, data)
        if name in EPOCH_EVENTS:
            key = (event.group_id, data.env_id, data.inner_epoch)
            with self._lock:
                resolve = self._epochs.pop(key, None)
            return event if resolve is None else self._merged(event, data, resolve())
        return event

    def left(self, key: UpdateKey) -> Measured | None:
        """The measurements whose event did not come: the batch is over."""
        measured = self._taken(key)
        with self._lock:
            self._infinite.pop(key, None)
        return measured

    def _taken(self, key: UpdateKey) -> Measured | None:
        with self._lock:
            waiting = key in self._updates
        if not waiting:
            self._arrive()
        with self._lock:
            return self._updates.pop(key, None)

    def everything_left(self) -> dict[UpdateKey, Measured]:
        """All measurements that still wait."""
        self._arrive()
        with self._lock:
            found, self._updates = self._updates, {}
            return found

    def _merged(self, event: Any, data: Any, measured: Fields) -> Fields:
        reported = _payload(data)
        for field, value in measured.items():
            theirs = reported.get(field)
            if theirs is None or (field in NEVER_FILLED and theirs == 0):
                reported[field] = value
            elif field in TOLERANCES:
                self._compare(field, theirs, value)
        for name in tuple(reported.get("not_measured") or ()):
            if reported.get(name) is not None:
                reported["not_measured"] = tuple(n for n in reported["not_measured"] if n != name)
        return _event(event, reported)

    def _renamed(self, event: Any, data: Any) -> Any:
        """The trainer's report, with Inf for NaN where an infinite logit made the NaN. It does not
        give its batch, so the updates count whose batch is not over."""
        with self._lock:
            waiting = [heads for key, heads in self._infinite.items() if key[0] == event.group_id]
        detail = getattr(data, "detail", None)
        if not waiting or not isinstance(detail, str):
            return event
        heads = frozenset().union(*waiting)
        named = ";".join(_infinite(part, heads) for part in detail.split(";"))
        return _event(event, {**_payload(data), "detail": named})

    def _compare(self, field: str, theirs: Any, ours: Any) -> None:
        if not disagree(theirs, ours, TOLERANCES[field]):
            return
        self._disagreed(field)
        if self._kinds.first(field):
            _log.warning("%s: the trainer reports %r, the probe measured %r", field, theirs, ours)


def disagree(theirs: float, ours: float, tolerance: float) -> bool:
    """Whether two numbers differ by more than a share of the larger. NaN agrees with NaN."""
    if math.isnan(theirs) or math.isnan(ours):
        return math.isnan(theirs) != math.isnan(ours)
    if math.isinf(theirs) or math.isinf(ours):
        return theirs != ours
    return abs(theirs - ours) > tolerance * max(abs(theirs), abs(ours), 1e-6)


def _infinite(part: str, heads: Iterable[str]) -> str:
    """One source of the trainer's report, with Inf for NaN in the log-probabilities of these
    heads."""
    mine = any(f"log_probs[{head}]" in part for head in heads)
    return (
        part.replace("NaN detected", "Inf detected").replace("non-finite", "Inf") if mine else part
    )


def _event(event: Any, reported: Fields) -> Fields:
    """The trainer's event with this payload."""
    kind = event.event_type
    return {
        "event_id": event.event_id,
        "event_type": getattr(kind, "name", kind),
        "timestamp": event.timestamp,
        "group_id": event.group_id,
        "seed_id": event.seed_id,
        "slot_id": event.slot_id,
        "epoch": event.epoch,
        "severity": event.severity,
        "message": event.message,
        "data": reported,
    }


def _put(table: dict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    while len(table) > MOST_WAITING:
        del table[next(iter(table))]


def _payload(data: Any) -> Fields:
    """A payload's fields, not copied further."""
    if isinstance(data, Mapping):
        return dict(data)
    if is_dataclass(data):
        return {field.name: getattr(data, field.name) for field in fields(data)}
    return dict(vars(data))
