"""What the store has of each series, held against what the replicas scraped: losses, duplicates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from benchmarks.store.store_servers import Server, wait_until

Series = tuple[tuple[str, str], ...]
NOT_JSON = re.compile(rb"(?<=[\[,])[-+]?(?:nan|inf(?:inity)?)(?=[,\]])", re.IGNORECASE)
"""Values that the store's export writes as no JSON."""
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
    first_lost: str = ""
    """A series of which an interval was lost, with the times around it, ms from the interval's
    end: of each replica's samples, then of the store's."""
    not_numbers: int = 0
    """Samples of NaN in both replicas: VictoriaMetrics keeps none, so they are not compared."""


def drained(replicas: Iterable[Server], moment: float, seconds: float = 300.0) -> float:
    """Wait until the replicas have sent what they scraped until a moment; how long that took."""
    began = time.monotonic()

    def sent(replica: Server) -> bool:
        text = replica.bytes("/metrics").decode()
        values = {
            line.partition("{")[0].partition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("prometheus_remote_storage_")
        }
        newest = values["prometheus_remote_storage_queue_highest_sent_timestamp_seconds"]
        return newest >= moment and values["prometheus_remote_storage_samples_pending"] < 5000

    for replica in replicas:
        wait_until(lambda one=replica: sent(one), f"{replica.name} has sent all", seconds)  # type: ignore[misc]
    return time.monotonic() - began


def _of_replica(
    replica: Server, instance: str, begin: float, end: float
) -> tuple[dict[Series, set[int]], int]:
    """Times (ms) of each series' samples, from a range selector, and how many more are NaN."""
    found: dict[Series, set[int]] = {}
    not_numbers = 0
    selector = f'{{instance="{instance}",job="esper"}}[{int(end - begin)}s]'
    for each in replica.query(selector, end):
        labels = {k: v for k, v in each["metric"].items() if k not in OF_THE_STORE}
        if ":" in labels["__name__"] or labels["__name__"].startswith("ALERTS"):
            continue
        times = {round(float(t) * 1000) for t, v in each["values"] if v != "NaN"}
        not_numbers += len(each["values"]) - len(times)
        found[tuple(sorted(labels.items()))] = times
    return found, not_numbers


def _of_store(
    store: Server, cluster: str, instance: str, begin: float, end: float
) -> dict[Series, list[tuple[int, bool]]]:
    """Times (ms) of each series' samples as the store answers with them, and whether each has a
    number: what has none is a NaN, or the mark of the series' end."""
    body = store.bytes(
        "/api/v1/export",
        **{
            "match[]": f'{{instance="{instance}",job="esper",cluster="{cluster}"}}',
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


def compare(
    replicas: list[Server],
    store: Server,
    cluster: str,
    instances: Iterable[str],
    begin: float,
    end: float,
    interval: int,
) -> Counts:
    """Every sample of every series between two times, Unix seconds that are multiples of the
    interval: the store keeps the last sample of each window of so many seconds."""
    counts, width = Counts(), interval * 1000

    def window(moment: int) -> int:
        return -(-moment // width)

    for instance in instances:
        scraped: dict[Series, set[int]] = {}
        apart: list[dict[Series, set[int]]] = []
        for replica in replicas:
            found, not_numbers = _of_replica(replica, instance, begin, end)
            counts.not_numbers += not_numbers
            apart.append(found)
            for series, times in found.items():
                scraped.setdefault(series, set()).update(times)
                counts.scraped += len(times)
        stored = _of_store(store, cluster, instance, begin + 0.001, end)
        counts.series += len(scraped)
        for series, times in scraped.items():
            # A range selector of Prometheus leaves the marks of ends out.
            kept = [t for t, number in stored.get(series, []) if number or t in times]
            ends = {
                window(t) for t, number in stored.get(series, []) if not number and t not in times
            }
            wanted, have = {window(t) for t in times}, {window(t) for t in kept}
            missing = wanted - have
            lost = missing - ends
            counts.windows += len(wanted)
            counts.stored += len(kept)
            counts.ended += len(missing & ends)
            counts.lost += len(lost)
            if lost and not counts.first_lost:
                at = min(lost) * width
                around = [sorted(t - at for t in each.get(series, ())) for each in apart]
                marks = sorted((t - at, number) for t, number in stored.get(series, []))
                counts.first_lost = f"{dict(series)} before {at / 1000:.0f}: " + ", ".join(
                    str(
                        [
                            one
                            for one in each
                            if abs(one if isinstance(one, int) else one[0]) < 3 * width
                        ]
                    )
                    for each in (*around, marks)
                )
            counts.duplicates += len(kept) - len(have)
            counts.foreign += len(set(kept) - times)
    return counts
