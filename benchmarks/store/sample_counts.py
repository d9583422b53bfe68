"""What the store has of each series, held against what the replicas scraped: losses, duplicates."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import orjson

from benchmarks.store.store_servers import Server, wait_until

Series = tuple[tuple[str, str], ...]
NOT_JSON = re.compile(rb"(?<=[\[,])[-+]?(?:nan|inf(?:inity)?)(?=[,\]])", re.IGNORECASE)
"""Values that the store's export writes as no JSON."""
RUNS_A_QUERY = 20
OF_THE_STORE = {"cluster", "replica"}
"""Labels that a replica adds when it sends, and the store's copy has or has lost."""


@dataclass
class Counts:
    """Sums over all series. A *window* is an interval of which the store keeps one sample."""

    series: int = 0
    scraped: int = 0
    """Samples in both replicas."""
    windows: int = 0
    """Windows in which at least one replica has a sample."""
    stored: int = 0
    lost: int = 0
    """Windows of which the store has none."""
    ended: int = 0
    """Windows of which the store keeps the mark of the series' end instead: a later scrape of the
    other replica, in the same window, failed or had the series no more."""
    duplicates: int = 0
    """Samples of the store beyond one a window."""
    foreign: int = 0
    """Samples of the store that no replica has."""
    late: int = 0
    """Windows that the store had only when it was asked again."""
    lost_scrapes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Lost series by run, and by the window's end in seconds after the first window began."""
    first_lost: str = ""
    """A series of which an interval was lost, with the times around it, ms from the interval's
    end: of each replica's samples, then of the store's."""
    not_numbers: int = 0
    """Samples of NaN in both replicas: VictoriaMetrics keeps none, so they are not compared."""

    def add(self, other: Counts) -> None:
        """Add another part of the whole."""
        for each in fields(self):
            mine, its = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, (mine or its) if isinstance(mine, str) else mine + its)


def drained(replicas: Iterable[Server], moment: float, seconds: float = 300.0) -> float:
    """Wait until the replicas' newest sent sample is of a moment, which shows that they send again;
    how long that took. Some of what is older may still wait: `compare` asks again for that."""
    began = time.monotonic()

    def sent(replica: Server) -> bool:
        text = replica.bytes("/metrics").decode()
        values = {
            line.partition("{")[0].partition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("prometheus_remote_storage_")
        }
        newest = values["prometheus_remote_storage_queue_highest_sent_timestamp_seconds"]
        return newest >= moment

    for replica in replicas:
        wait_until(lambda one=replica: sent(one), f"{replica.name} has sent all", seconds)  # type: ignore[misc]
    return time.monotonic() - began


def _of_replica(
    replica: Server, instances: str, begin: float, end: float
) -> tuple[dict[Series, set[int]], int]:
    """Times (ms) of each series' samples after ``begin``, and how many more are NaN."""
    found: dict[Series, set[int]] = {}
    not_numbers = 0
    selector = f'{{instance=~"{instances}",job="esper"}}[{int(end - begin)}s]'
    for each in replica.query(selector, end):
        labels = {k: v for k, v in each["metric"].items() if k not in OF_THE_STORE}
        if ":" in labels["__name__"] or labels["__name__"].startswith("ALERTS"):
            continue
        # A range selector of Prometheus 2 is closed on both sides: a sample at ``begin`` belongs
        # to the window before.
        within = [(float(t), v) for t, v in each["values"] if float(t) > begin]
        times = {round(t * 1000) for t, v in within if v != "NaN"}
        not_numbers += len(within) - len(times)
        found[tuple(sorted(labels.items()))] = times
    return found, not_numbers


def _of_store(
    store: Server, cluster: str, instances: str, begin: float, end: float
) -> dict[Series, list[tuple[int, bool]]]:
    """Times (ms) of each series' samples as the store answers with them, and whether each has a
    number: what has none is a NaN, or the mark of the series' end."""
    body = store.bytes(
        "/api/v1/export",
        **{
            "match[]": f'{{instance=~"{instances}",job="esper",cluster="{cluster}"}}',
            "start": f"{begin:.3f}",
            "end": f"{end:.3f}",
        },
    )
    found = {}
    for line in body.splitlines():
        each = orjson.loads(NOT_JSON.sub(b"null", line))
        labels = {k: v for k, v in each["metric"].items() if k not in OF_THE_STORE}
        if ":" in labels["__name__"] or labels["__name__"].startswith("ALERTS"):
            continue
        pairs = zip(each["timestamps"], each["values"], strict=True)
        found[tuple(sorted(labels.items()))] = [(t, v is not None) for t, v in pairs]
    return found


@dataclass(frozen=True)
class Span:
    """Which samples to compare: of a cluster's runs between two times, Unix seconds that are
    multiples of the interval; the store keeps the last sample of each window of so many seconds.
    """

    cluster: str
    begin: float
    end: float
    interval: int

    def window(self, moment: int) -> int:
        """The number of the window that a time in milliseconds lies in."""
        return -(-moment // (self.interval * 1000))


def compare(
    replicas: Sequence[Server],
    store: Server,
    span: Span,
    instances: Iterable[str],
    patience: float = 0.0,
) -> Counts:
    """Count every sample of every series of these runs, in the replicas and in the store.

    What the store lacks is asked for again for ``patience`` seconds in all: replicas go on sending,
    and a store shows what it took only after a moment.
    """
    total, deadline = Counts(), time.monotonic() + patience
    names = list(instances)
    for first in range(0, len(names), RUNS_A_QUERY):
        pattern = "|".join(map(re.escape, names[first : first + RUNS_A_QUERY]))
        apart: list[dict[Series, set[int]]] = []
        counts = Counts()
        for replica in replicas:
            found, not_numbers = _of_replica(replica, pattern, span.begin, span.end)
            counts.not_numbers += not_numbers
            counts.scraped += sum(map(len, found.values()))
            apart.append(found)
        lost_first: int | None = None
        while True:
            stored = _of_store(store, span.cluster, pattern, span.begin + 0.001, span.end)
            seen = _held_against(apart, stored, span)
            lost_first = seen.lost if lost_first is None else lost_first
            if not seen.lost or time.monotonic() >= deadline:
                break
            time.sleep(1)
        seen.late = lost_first - seen.lost
        total.add(counts)
        total.add(seen)
    return total


def _held_against(
    apart: Sequence[Mapping[Series, set[int]]],
    stored: Mapping[Series, list[tuple[int, bool]]],
    span: Span,
) -> Counts:
    """What the store has of some runs' samples, those of each replica given."""
    scraped: dict[Series, set[int]] = {}
    for found in apart:
        for series, times in found.items():
            scraped.setdefault(series, set()).update(times)
    counts = Counts(series=len(scraped))
    for series, times in scraped.items():
        # A range selector of Prometheus leaves the marks of ends out.
        pairs = stored.get(series, [])
        kept = [t for t, number in pairs if number or t in times]
        ends = {span.window(t) for t, number in pairs if not number and t not in times}
        wanted, have = {span.window(t) for t in times}, {span.window(t) for t in kept}
        missing = wanted - have
        lost = missing - ends
        counts.windows += len(wanted)
        counts.stored += len(kept)
        counts.ended += len(missing & ends)
        counts.lost += len(lost)
        for window in lost:
            instance = dict(series)["instance"]
            counts.lost_scrapes[instance, int(window * span.interval - span.begin)] += 1
        if lost and not counts.first_lost:
            counts.first_lost = _around(min(lost), series, apart, pairs, span)
        counts.duplicates += len(kept) - len(have)
        counts.foreign += len(set(kept) - times)
    return counts


def _around(
    window: int,
    series: Series,
    apart: Sequence[Mapping[Series, set[int]]],
    pairs: list[tuple[int, bool]],
    span: Span,
) -> str:
    """A lost window's series, and the times around it."""
    width = span.interval * 1000
    at = window * width
    replicas = [sorted(t - at for t in each.get(series, ()) if abs(t - at) < 3 * width)
                for each in apart]  # fmt: skip
    marks = sorted((t - at, number) for t, number in pairs if abs(t - at) < 3 * width)
    return f"{dict(series)} before {at / 1000:.0f}: {replicas}, {marks}"
