"""Time to emit an event, by type, from a recorded run."""

from __future__ import annotations

import gzip
import time
from collections import defaultdict
from dataclasses import make_dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Result
from esper_exporter import Exporter
from esper_exporter.contract.jsonlines import parse_line

RECORDING = Path(__file__).parents[1] / "tests" / "recordings" / "run1.telemetry.jsonl.gz"
LIMITS = {"PPO_UPDATE_COMPLETED": 70e-6, "last_action": 25e-6, "EPOCH_COMPLETED": 12e-6}
"""Seconds that an event may take, by what it is; the others are those of `REPLAY_LIMIT`."""
REPLAY_LIMIT = 12e-6
"""Seconds that an event of a whole recording may take, in the mean."""


@cache
def _class_of(name: str, fields: tuple[str, ...]) -> type:
    """A dataclass with slots, as esper's own payloads are."""
    return make_dataclass(name, fields, slots=True)


def _as_live(event: dict[str, Any]) -> Any:
    """The form in which the hub hands an event over: envelope and payload are objects."""
    data = event["data"]
    payload = _class_of(event["event_type"], tuple(data))(**data)
    return _class_of("TelemetryEvent", tuple(event))(**{**event, "data": payload})


def _kind(event: dict[str, Any]) -> str:
    return str(event["data"].get("kind") or event["event_type"])


def run(rounds: int) -> list[Result]:
    with gzip.open(RECORDING) as lines:
        events = [parse_line(line) for line in lines]
    kinds = [_kind(event) for event in events]
    forms = {"dict": events, "live": [_as_live(event) for event in events]}
    medians: dict[tuple[str, str], list[float]] = defaultdict(list)
    replays: dict[str, list[float]] = defaultdict(list)
    for _ in range(max(2, rounds // 2)):
        for form, given in forms.items():
            seconds: list[float] = []
            # As `replay` does: what a live run keeps on disk at its end is not a recording's.
            exporter = Exporter(port=0, state_dir="off", share="off", watch_process=False)
            begun = time.thread_time()
            for thing in given:
                start = time.perf_counter()
                exporter.emit(thing)
                seconds.append(time.perf_counter() - start)
            replays[form].append((time.thread_time() - begun) / len(events))
            spent: dict[str, list[float]] = defaultdict(list)
            for kind, one in zip(kinds, seconds, strict=True):
                spent[kind].append(one)
            for kind in LIMITS:
                medians[form, kind].append(median(spent[kind]))
    results = [
        Result(
            f"emit {kind}, {form}",
            min(medians[form, kind]),
            None,
            None,
            "s",
            limit,
            more=False,
            note="median over a recorded run, best of its replays",
        )
        for kind, limit in LIMITS.items()
        for form in forms
    ]
    return results + [
        Result(
            "an event of a replay" + ("" if form == "dict" else f", {form}"),
            min(replays[form]),
            None,
            None,
            "s",
            REPLAY_LIMIT,
            more=False,
            note="CPU of this thread, mean over a recorded run, best of its replays",
        )
        for form in forms
    ]
