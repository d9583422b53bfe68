"""Thirty days with 210 runs in a VictoriaMetrics, and the fleet dashboard's queries on them."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.dashboards import queries
from benchmarks.store.simulated_fleet import Fleet
from benchmarks.store.store_servers import Server, wait_until

DAYS = 30
AT_ONCE = 7
RUN_SECONDS = 86_400
"""A run trains for a day, and another one follows it: 210 runs in all."""
STEP = 60
POINTS = 1000
OF_ALL_RUNS = "esper-fleet"
SLOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of all runs over 30 days, how long it took at best, and how many series came."""

    title: str
    query: str
    seconds: float
    series: int


def fleet_metrics() -> set[str]:
    """The metrics that the fleet's dashboard asks for."""
    return {
        name
        for board, _, expression, _ in queries()
        if board == OF_ALL_RUNS
        for name in re.findall(r"\b(?:esper_\w+|up)\b", expression)
    }


def _series_of_a_page(wanted: set[str]) -> list[tuple[dict[str, str], float]]:
    page = Fleet().page("north", 3) or b""
    found = [({"__name__": "up"}, 1.0)]
    for line in page.decode().splitlines():
        start, _, text = line.rpartition(" ")
        name, _, inside = start.partition("{")
        if name in wanted:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', inside))
            found.append(({**labels, "__name__": name}, float(text)))
    return found


def _lines(end: int) -> Iterator[bytes]:
    """JSON lines of VictoriaMetrics' import, a series each."""
    shapes = _series_of_a_page(fleet_metrics())
    for day in range(DAYS):
        last = end - (DAYS - 1 - day) * RUN_SECONDS
        times = np.arange(last - RUN_SECONDS + STEP, last + 1, STEP, dtype=np.int64)
        for place in range(AT_ONCE):
            run = day * AT_ONCE + place
            rng = np.random.default_rng(run)
            for labels, value in shapes:
                name = labels["__name__"]
                if name.endswith("_total"):
                    values = value + np.cumsum(rng.integers(0, 3, len(times))).astype(float)
                elif name.endswith("_last_update_timestamp_seconds"):
                    values = (times - 5).astype(float)
                elif name.endswith("_start_timestamp_seconds"):
                    values = np.full(len(times), float(times[0]))
                elif name.endswith(("_ratio", "_nats", "_norm", "_loss")):
                    values = value * (1 + 0.1 * rng.standard_normal(len(times)))
                else:
                    values = np.full(len(times), value)
                metric = {**labels, "job": "esper", "cluster": "north", "instance": str(place)}
                if "run_id" in metric:
                    metric["run_id"] = f"run-{run}"
                yield orjson.dumps(
                    {"metric": metric, "values": values, "timestamps": times * 1000},
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )


def fill(store: Server, end: int) -> tuple[int, int, float]:
    """Import the month; series, samples, and how long it took."""
    began, series, batch, size = time.monotonic(), 0, [], 0
    for line in _lines(end):
        batch.append(line)
        size += len(line)
        series += 1
        if size > 16 << 20:
            _post(store, batch)
            batch, size = [], 0
    _post(store, batch)
    newest = f'count(last_over_time(up{{cluster="north"}}[1d] @ {end}))'
    wait_until(lambda: store.value(newest, float(end)) == AT_ONCE, "the month is there")
    return series, series * RUN_SECONDS // STEP, time.monotonic() - began


def _post(store: Server, batch: list[bytes]) -> None:
    request = urllib.request.Request(f"{store.url}/api/v1/import", b"\n".join(batch))
    with urllib.request.urlopen(request, timeout=300) as answer:
        answer.read()


def ask(store: Server, end: int, rounds: int = 2) -> list[Asked]:
    """The fleet dashboard's queries over the 30 days as Grafana sends them, the best of rounds."""
    every = max(STEP, DAYS * 86_400 // POINTS // STEP * STEP)
    values = {
        "__range": f"{DAYS}d",
        "__rate_interval": f"{every + STEP}s",
        "__interval": f"{every}s",
    }
    found = []
    for board, title, expression, points in queries():
        if board != OF_ALL_RUNS:
            continue
        query = re.sub(r"\$\{?(\w+)\}?", lambda name: values.get(name[1], ".*"), expression)
        best, series = float("inf"), 0
        for _ in range(rounds):
            began = time.monotonic()
            given = {"query": query, "nocache": "1"}
            if points:
                step = DAYS * 86_400 // points // STEP * STEP or STEP
                given |= {"start": str(end - DAYS * 86_400), "end": str(end), "step": str(step)}
                body = store.bytes("/api/v1/query_range", **given)
            else:
                body = store.bytes("/api/v1/query", time=str(end), **given)
            best = min(best, time.monotonic() - began)
            series = len(orjson.loads(body)["data"]["result"])
        found.append(Asked(title, query, best, series))
    return found


def size_on_disk(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
