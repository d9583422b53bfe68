"""Find the line of a recording at a given time: the number to replay to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from esper_exporter.contract.event_table import canonical
from esper_exporter.journal.reading import moment_of
from esper_exporter.state.latches import FINITENESS_ANOMALIES

_TIME = re.compile(rb'"timestamp"\s*:\s*"([^"\\]{1,40})"')
_UPDATES = (
    b"POLICY_UPDATE",
    b"PPO_UPDATE",
    b"NUMERICAL_INSTABILITY",
    b"BATCH",
    b"TRAINING_STARTED",
)


class NoMoment(ValueError):
    """The recording has no such time. The text is for the user."""


@dataclass(slots=True)
class _Group:
    batches: int = 0
    update: int = 0


def line_at(lines: Iterable[bytes], at: datetime) -> int:
    """The last line whose event is not later than a time. Raises NoMoment."""
    found = 0
    for number, line in enumerate(lines, 1):
        match = _TIME.search(line)
        moment = moment_of(match[1].decode("ascii", "replace")) if match else None
        if moment is not None and moment <= at:
            found = number
    if not found:
        raise NoMoment(f"no event is as old as {at.isoformat()}")
    return found


def line_of_update(lines: Iterable[bytes], update: int, group: str | None) -> int:
    """The line that reports a policy update, carried out or skipped. Raises NoMoment."""
    groups: dict[str, _Group] = {}
    newest = 0
    for number, line in enumerate(lines, 1):
        if not any(each in line for each in _UPDATES):
            continue
        try:
            event = json.loads(line)
            kind, data = canonical(event["event_type"]), event.get("data") or {}
            name = event.get("group_id") or "default"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if group is not None and name != group:
            continue
        state = groups.setdefault(name, _Group())
        if kind == "TRAINING_STARTED":
            groups[name] = _Group()
        elif kind == "TOLARIA_BATCH_COMPLETED":
            batch = data.get("batch_idx")
            state.batches = batch if isinstance(batch, int) else state.batches + 1
        else:
            if kind == "TAMIYO_POLICY_UPDATE":
                batch = data.get("batch")
                known = isinstance(batch, int) and batch > 0
                state.update = int(batch or 0) if known else state.update + 1
            elif data.get("anomaly_type") in FINITENESS_ANOMALIES:
                state.update = state.batches + 1
            else:
                continue
            newest = max(newest, state.update)
            if state.update == update:
                return number
    raise NoMoment(f"no policy update {update}; the last one is {newest}")
