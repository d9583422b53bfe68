"""Thirty days of runs in a VictoriaMetrics, and all dashboards' queries on them."""

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
SCRAPES = 60
"""Seconds from sample to sample at least, where the dashboards' intervals begin."""
POINTS = 1000
OF_ALL_RUNS = ("esper-fleet", "esper-exporter")
"""Dashboards that ask for every run; the others ask for one."""
WHOLE_RUN = 0
"""The run that has all the series of a page, and that is chosen on the dashboards of one run."""
SLOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Month:
    """Whose samples lie in the store: so many runs at once, one after the other.

    ``run_days`` divides the thirty days; ``step`` is the seconds from sample to sample.
    """

    at_once: int
    run_days: int
    step: int

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return self.at_once * DAYS // self.run_days


MONTHS = {
    "210 runs of a day, 7 at once": Month(7, 1, 60),
    "200 runs of 30 days, all at once": Month(200, 30, 900),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query over 30 days, how long it took at best, and how many series came."""

    board: str
    title: str
    query: str
    seconds: float
    series: int


def fleet_metrics() -> set[str]:
    """The metrics that the dashboards of all runs ask for."""
    return {
        name
        for board, _, expression, _ in queries()
        if board in OF_ALL_RUNS
        for name in re.findall(r"\b(?:(?:esper|process|python)_\w+|up)\b", expression)
    }


def _series_of_a_page() -> list[tuple[dict[str, str], float]]:
    page = Fleet().page("north", WHOLE_RUN) or b""
    found = [({"__name__": "up"}, 1.0)]
    for line in page.decode().splitlines():
        if line.startswith("#"):
            continue
        start, _, text = line.rpartition(" ")
        name, _, inside = start.partition("{")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', inside))
        found.append(({**labels, "__name__": name}, float(text)))
    return found


def _lines(month: Month, end: int) -> Iterator[bytes]:
    """JSON lines of VictoriaMetrics' import, a series each."""
    whole, wanted = _series_of_a_page(), fleet_metrics()
    shapes = [one for one in whole if one[0]["__name__"] in wanted]
    seconds = month.run_days * 86_400
    for run in range(month.runs):
        turn, place = divmod(run, month.at_once)
        last = end - DAYS * 86_400 + (turn + 1) * seconds
        times = np.arange(last - seconds + month.step, last + 1, month.step, dtype=np.int64)
        rng = np.random.default_rng(run)
        for labels, value in whole if run == WHOLE_RUN else shapes:
            name = labels["__name__"]
            if name.endswith(("_total", "_count", "_sum", "_bucket")):
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


def fill(store: Server, month: Month, end: int) -> tuple[int, int, float]:
    """Import the month; series, samples, and the seconds it took."""
    began, series, batch, size = time.monotonic(), 0, [], 0
    for line in _lines(month, end):
        batch.append(line)
        size += len(line)
        series += 1
        if size > 16 << 20:
            _post(store, batch)
            batch, size = [], 0
    _post(store, batch)
    newest = f'count(last_over_time(up{{cluster="north"}}[1d] @ {end}))'
    wait_until(lambda: store.value(newest, float(end)) == month.at_once, "the month is there")
    samples = series * month.run_days * 86_400 // month.step
    return series, samples, time.monotonic() - began


def _post(store: Server, batch: list[bytes]) -> None:
    request = urllib.request.Request(f"{store.url}/api/v1/import", b"\n".join(batch))
    with urllib.request.urlopen(request, timeout=300) as answer:
        answer.read()


def ask(store: Server, month: Month, end: int, rounds: int = 2) -> list[Asked]:
    """All dashboards' queries over the 30 days as Grafana sends them, each the best of rounds."""
    every = _interval(POINTS)
    values = {
        "__range": f"{DAYS}d",
        "__rate_interval": f"{every + month.step}s",
        "__interval": f"{every}s",
        "run": f"run-{WHOLE_RUN}",
    }
    found = []
    for board, title, expression, points in queries():
        query = re.sub(r"\$\{?(\w+)\}?", lambda name: values.get(name[1], ".*"), expression)
        best, series = float("inf"), 0
        for _ in range(rounds):
            began = time.monotonic()
            given = {"query": query, "nocache": "1"}
            if points:
                step = _interval(points)
                given |= {"start": str(end - DAYS * 86_400), "end": str(end), "step": str(step)}
                body = store.bytes("/api/v1/query_range", **given)
            else:
                body = store.bytes("/api/v1/query", time=str(end), **given)
            best = min(best, time.monotonic() - began)
            series = len(orjson.loads(body)["data"]["result"])
        found.append(Asked(board, title, query, best, series))
    return found


def _interval(points: int) -> int:
    """Seconds from point to point of a graph."""
    return max(SCRAPES, DAYS * 86_400 // points // SCRAPES * SCRAPES)


def size_on_disk(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
