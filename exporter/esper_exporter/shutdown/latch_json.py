"""A run's latches as JSON, and back: what is readable in a damaged file is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from esper_exporter.state.latches import KINDS, NONFINITE_SOURCES, Latch, Latches
from esper_exporter.state.run import RunIdentity

VERSION = 1
LARGEST_COUNT = 2**53
"""Up to here every whole number is a float64, which is what a page shows."""
LONGEST_HEAD = 64
MOST_HEADS = 256

T = TypeVar("T")


@dataclass(slots=True)
class Kept:
    """What a file keeps of a run, and how much of it could not be used."""

    heads: dict[tuple[str, str], Latch] = field(default_factory=dict)
    sources: dict[str, Latch] = field(default_factory=dict)
    dropped: int = 0


def encode(identity: RunIdentity, latches: Latches) -> bytes:
    """The latches of a run that are lit, with whose they are."""
    data = {
        "version": VERSION,
        "run_id": identity.run_id,
        "group_id": identity.group_id,
        "rank": identity.rank,
        "heads": {
            f"{head}/{kind}": _latch_to_json(latch)
            for (head, kind), latch in latches.heads.items()
            if latch.lit
        },
        "sources": {
            source: _latch_to_json(latch) for source, latch in latches.sources.items() if latch.lit
        },
    }
    return json.dumps(data).encode()


def decode(text: bytes) -> Kept:
    """What the text keeps. A field that makes no sense is dropped and counted, not the rest; a
    latch stays lit whatever became of its numbers. Raises ValueError for a text that keeps
    nothing."""
    try:
        # A number with thousands of digits is no number of updates, and takes seconds to read.
        data = json.loads(text, parse_int=lambda digits: int(digits[:20]))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        version = data.get("version") if isinstance(data, dict) else None
        raise ValueError(f"version {str(version)[:20]}, want {VERSION}")
    kept = Kept()
    reader = _Reader(kept)
    for key, value in reader.entries(data, "heads"):
        head, _, kind = key.rpartition("/")
        if _is_head(head) and kind in KINDS and len(kept.heads) < MOST_HEADS:
            kept.heads[head, kind] = reader.latch(value)
        else:
            kept.dropped += 1
    for source, value in reader.entries(data, "sources"):
        if source in NONFINITE_SOURCES:
            kept.sources[source] = reader.latch(value)
        else:
            kept.dropped += 1
    return kept


def _is_head(name: str) -> bool:
    """Whether a name can be a label: short enough, and with nothing that UTF-8 has not."""
    return 0 < len(name) <= LONGEST_HEAD and not any("\ud800" <= c <= "\udfff" for c in name)


def _latch_to_json(latch: Latch) -> dict[str, Any]:
    return {
        "updates": latch.updates,
        "first": latch.first.isoformat() if latch.first else None,
        "last": latch.last.isoformat() if latch.last else None,
        "first_update": latch.first_update,
        "first_batch": latch.first_batch,
    }


class _Reader:
    """Reads fields leniently and counts those it drops."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def entries(self, data: dict[str, Any], name: str) -> list[tuple[str, Any]]:
        found = data.get(name)
        if isinstance(found, dict):
            return list(found.items())
        self._kept.dropped += 1
        return []

    def latch(self, data: Any) -> Latch:
        if not isinstance(data, dict):
            self._kept.dropped += 1
            data = {"updates": 1}
        return Latch(
            updates=self._field(data, "updates", _count) or 1,
            first=self._field(data, "first", _moment, may_lack=True),
            last=self._field(data, "last", _moment, may_lack=True),
            first_update=self._field(data, "first_update", _whole, may_lack=True),
            first_batch=self._field(data, "first_batch", _whole, may_lack=True),
        )

    def _field(
        self, data: dict[str, Any], name: str, read: Callable[[Any], T], *, may_lack: bool = False
    ) -> T | None:
        value = data.get(name)
        if value is None and may_lack:
            return None
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError):
            self._kept.dropped += 1
            return None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not a whole number")
    if not 0 <= value <= LARGEST_COUNT:
        raise ValueError("out of range")
    return value


def _count(value: Any) -> int:
    if (count := _whole(value)) < 1:
        raise ValueError("a lit latch was lit at least once")
    return count


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError("not a time")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    moment.timestamp()
    return moment
