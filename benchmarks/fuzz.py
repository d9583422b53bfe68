"""Mangled events by the million: nothing raises, good events count exactly, pages parse strictly.

    python -m benchmarks.fuzz --events 1000000 --seed 1

Two of three events are generated: partial payloads, heads under any name, values of other types,
hostile objects. Every third is a good one of a separate kind, counted exactly at the end.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import SimpleNamespace
from typing import Any

import numpy as np
from msgspec.structs import fields
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from esper_exporter import Exporter
from esper_exporter.contract.event_table import BY_NAME
from esper_exporter.contract.vocabulary import HEADS

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
SCRAPE_EVERY = 20_000
GOOD = "TOLARIA_BATCH_COMPLETED"
NAMES = [name for name, row in BY_NAME.items() if row.name != GOOD]


def _refuse(*_args: object) -> Any:
    raise RuntimeError("no")


class HostileText(str):
    __eq__ = __len__ = __str__ = __format__ = isascii = encode = lower = _refuse  # type: ignore[assignment]
    __hash__ = str.__hash__


class HostileInt(int):
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __index__ = __float__ = __int__ = _refuse  # type: ignore[assignment]
    __hash__ = int.__hash__


class HostileFloat(float):
    __eq__ = __lt__ = __gt__ = __float__ = __add__ = __mul__ = __truediv__ = _refuse  # type: ignore[assignment]
    __hash__ = float.__hash__


class HostileTime(datetime):
    timestamp = isoformat = replace = astimezone = __gt__ = __lt__ = __sub__ = _refuse  # type: ignore[assignment]


class HostileZone(tzinfo):
    utcoffset = _refuse


class HostileObject:
    """Raises whatever is looked at."""

    __bool__ = __len__ = __iter__ = __eq__ = __hash__ = __float__ = __int__ = _refuse  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class HostileDict(dict[str, Any]):
    get = __getitem__ = items = keys = values = __iter__ = __len__ = copy = _refuse  # type: ignore[assignment]


class Lazy:
    """A payload of which one attribute raises."""

    def __init__(self, values: dict[str, Any], bad: str) -> None:
        self._values, self._bad = values, bad

    def __getattr__(self, name: str) -> Any:
        if name == self._bad or name.startswith("_"):
            raise RuntimeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


def _scalars(draw: random.Random) -> Any:
    return draw.choice(_SCALARS)(draw)


_SCALARS: list[Callable[[random.Random], Any]] = [
    lambda draw: draw.random() * 100,
    lambda draw: draw.randrange(-5, 2000),
    lambda draw: draw.random() < 0.5,
    lambda draw: draw.choice(
        [*HEADS, "torso", "gripper", "r0c0", "TRAINING", "nonfinite", 'é\n"\\']
    ),
    lambda draw: None,
    lambda draw: draw.choice([float("nan"), float("inf"), float("-inf"), -0.0, 1e308]),
    lambda draw: draw.choice([10**400, -(10**400), 2**63, 2**64, -(2**63) - 1]),
    lambda draw: np.float32(draw.random()),
    lambda draw: draw.choice([np.int64(3), np.bool_(True), np.float64("nan"), "0.25", "NaN"]),
    lambda draw: draw.choice(["x" * 300, "y" * 9000, "\ud800", "", "\x00"]),
    lambda draw: draw.choice(
        [HostileText("op"), HostileInt(3), HostileFloat(0.5), HostileObject()]
    ),
    lambda draw: draw.choice([b"x", object(), HostileObject, {1}, range(3), 1j, HostileDict(a=1)]),
]


def _values(draw: random.Random, hint: str, depth: int = 0) -> Any:
    """A value for a field: mostly of its type, at times of any."""
    if draw.random() < 0.15:
        return _scalars(draw)
    if "dict" in hint or draw.random() < 0.03:
        keys = [_key(draw) for _ in range(draw.randrange(4))]
        return {key: _any(draw, depth) for key in keys}
    if "tuple" in hint:
        return [_any(draw, depth) for _ in range(draw.randrange(7))]
    if "bool" in hint:
        return draw.random() < 0.5
    if "str" in hint:
        return draw.choice([*HEADS, "torso", "r0c0", "r1c1", "GERMINATE", "TRAINING", "finite"])
    if "int" in hint:
        return draw.randrange(0, 40)
    return draw.choice([draw.random(), draw.gauss(0, 1e3), float("nan")])


def _key(draw: random.Random) -> Any:
    return draw.choice([*HEADS, "curve", "torso", "gripper", "layer.0", "r0c0", "é", 3, "k" * 300])


def _any(draw: random.Random, depth: int) -> Any:
    if depth < 3 and draw.random() < 0.25:
        return {_key(draw): _any(draw, depth + 1) for _ in range(draw.randrange(4))}
    return _scalars(draw)


_HINTS = {
    name: [(each.name, str(each.type), each.required) for each in fields(BY_NAME[name].payload)]
    for name in NAMES
}


def _timestamp(draw: random.Random) -> Any:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(10**6))
    chosen = draw.randrange(12)
    return {
        0: HostileTime(2026, 1, 1, tzinfo=UTC),
        1: now.replace(tzinfo=HostileZone()),
        2: now.astimezone(timezone(timedelta(hours=5))),
        3: draw.choice([None, "never", 10**400, -1, "0001-01-01T00:00:00"]),
        4: now.replace(tzinfo=None),
    }.get(chosen, now.isoformat())


def mangled(draw: random.Random) -> Any:
    """One generated event, which may be good by chance."""
    name = draw.choice(NAMES)
    keep = draw.choice([0.0, 0.05, 0.3, 1.0])
    data: Any = {
        field: _values(draw, hint)
        for field, hint, required in _HINTS[name]
        if (required and draw.random() < 0.97) or draw.random() < keep
    }
    form = draw.randrange(12)
    if form == 0:
        data = SimpleNamespace(**data)
    elif form == 1 and data:
        data = Lazy(data, draw.choice(list(data)))
    elif form == 2:
        data = draw.choice([None, [], "x", HostileObject(), HostileDict(data), 3])
    event: dict[str, Any] = {
        "event_type": name if draw.random() < 0.97 else _scalars(draw),
        "timestamp": _timestamp(draw),
        "data": data,
    }
    for optional in ("event_id", "group_id", "slot_id", "severity", "message", "epoch"):
        if draw.random() < 0.1:
            event[optional] = _scalars(draw)
    shape = draw.randrange(20)
    if shape == 0:
        return SimpleNamespace(**event)
    if shape == 1:
        return draw.choice([None, 3, "x", [], HostileObject(), HostileDict(event), object])
    return event


def good(number: int) -> dict[str, Any]:
    """An event that must count, in a separate group."""
    data = {
        "episodes_completed": number,
        "batch_idx": number,
        "avg_accuracy": 50.0,
        "avg_reward": 1.0,
        "total_episodes": 10**9,
        "n_envs": 1,
    }
    return {"event_type": GOOD, "group_id": "good", "timestamp": 1.8e9 + number, "data": data}


@dataclass
class Outcome:
    """What a run of the fuzz found."""

    events: int = 0
    good: int = 0
    raised: list[str] = field(default_factory=list)
    pages: int = 0
    unparsed: list[str] = field(default_factory=list)
    counted: float = 0.0
    internal_errors: float = 0.0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return (
            not self.raised
            and not self.unparsed
            and self.counted == self.good
            and self.internal_errors == 0
        )


def _samples(page: str) -> Iterator[Any]:
    for family in text_string_to_metric_families(page):
        yield from family.samples


def _check(exporter: Exporter, outcome: Outcome) -> str:
    page = exporter.render().decode()
    outcome.pages += 1
    for parse, text in (
        (text_string_to_metric_families, page),
        (openmetrics_families, exporter.render(OPENMETRICS).decode()),
    ):
        try:
            for family in parse(text):
                list(family.samples)
        except Exception as problem:
            outcome.unparsed.append(f"{type(problem).__name__}: {problem}"[:300])
    return page


def run(events: int, seed: int) -> Outcome:
    """Emit so many generated events, a third of them good, and look at the pages."""
    draw = random.Random(seed)
    outcome = Outcome()
    exporter = Exporter(port=0, state_dir="off", max_series=20_000)
    begun = time.perf_counter()
    for number in range(events):
        event = good(outcome.good) if number % 3 == 0 else mangled(draw)
        outcome.events += 1
        outcome.good += number % 3 == 0
        try:
            exporter.emit(event)
        except BaseException as problem:
            outcome.raised.append(f"{type(problem).__name__}: {problem}"[:300])
        if number % SCRAPE_EVERY == SCRAPE_EVERY - 1:
            _check(exporter, outcome)
    page = _check(exporter, outcome)
    outcome.seconds = time.perf_counter() - begun
    for sample in _samples(page):
        if sample.name == "esper_tolaria_batches_total" and sample.labels["group_id"] == "good":
            outcome.counted += sample.value
        if sample.name == "esper_exporter_internal_errors_total":
            outcome.internal_errors += sample.value
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("esper_exporter").setLevel(logging.ERROR)
    outcome = run(options.events, options.seed)
    print(
        f"{outcome.events} events in {outcome.seconds:.0f} s: {len(outcome.raised)} raised,"
        f" {outcome.counted:.0f} of {outcome.good} good ones counted,"
        f" {outcome.internal_errors:.0f} internal errors, {outcome.pages} pages in two formats,"
        f" {len(outcome.unparsed)} not parsed"
    )
    for line in (*outcome.raised[:5], *outcome.unparsed[:5]):
        print(line)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
