"""Whether the state is whole after all faults: latches, counters, samples, the backlog, files."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos.faults import HEAD
from benchmarks.chaos.fleet import Fleet
from benchmarks.chaos.nodes import Node
from benchmarks.chaos.servers import Server

Problem = tuple[str, str]
"""What is not whole (a run, a node, a server), and what is wrong with it."""
LATCHED = "esper_tamiyo_head_nonfinite_latched"
UPDATES = "esper_tamiyo_updates_total"
SHARE_FILES = {"agent.claim", "agent.lock", "filler"}
KEPT_SECONDS = 960.0
"""An agent keeps the end of a process for 900 s."""
MISSED_SCRAPES = 2.5
"""A gap is longer than this many intervals."""
UNSENT_SECONDS = 30.0
"""What a Prometheus had not sent when it was killed, the store does not get from it."""
UNWRITTEN_SECONDS = 15.0
"""VictoriaMetrics acknowledges samples some seconds before it writes them to the disk."""

Outages = Sequence[tuple[float, float]]


def gaps(times: Sequence[float], longest: float, excused: Outages) -> list[tuple[float, float]]:
    """Where consecutive times are further apart than ``longest`` outside the excused outages."""
    return [
        (before, after)
        for before, after in pairwise(times)
        if after - before > longest
        and not any(start - longest <= before and after <= end + longest for start, end in excused)
    ]


def lit(server: Server) -> set[tuple[str, str, str]]:
    """Run, head and kind of each latch that is lit."""
    return {
        (s["metric"]["run_id"], s["metric"]["head"], s["metric"]["kind"])
        for s in server.query(f"{LATCHED} == 1")
    }


def of_latches(fleet: Fleet, latched: set[str]) -> Iterator[Problem]:
    """Each server knows the latches that were lit, and no other."""
    wanted = {(run_id, HEAD, "nan") for run_id in latched}
    for server in (*fleet.replicas.values(), fleet.store):
        found = lit(server)
        for run_id, head, kind in sorted(wanted - found):
            yield run_id, f"{server.name} lacks the latch {head} {kind}"
        for run_id, head, kind in sorted(found - wanted):
            yield run_id, f"{server.name} has the latch {head} {kind}"


def page(node: Node) -> dict[tuple[str, str], float]:
    """Samples of runs on the agent's page, by metric and run."""
    with urllib.request.urlopen(f"http://{node.address}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels["run_id"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "run_id" in sample.labels
    }


def of_runs(fleet: Fleet) -> Iterator[Problem]:
    """Each run lives, on its agent's page and in both Prometheus, with all its updates."""
    for node in fleet.nodes.values():
        before = {run_id: training.updates for run_id, training in node.trainings.items()}
        time.sleep(2.0)  # each process publishes every second
        found = page(node)
        for run_id, training in node.trainings.items():
            if found.get(("esper_run_active", run_id)) != 1.0:
                yield run_id, "is not active on its agent's page"
            counted = found.get((UPDATES, run_id), 0.0)
            if not before[run_id] <= counted <= training.updates:
                yield run_id, f"has {counted:.0f} updates of {before[run_id]}"
    for server in fleet.replicas.values():
        active = {s["metric"]["run_id"] for s in server.query("esper_run_active == 1")}
        for node in fleet.nodes.values():
            for run_id in sorted(set(node.trainings) - active):
                yield run_id, f"is not active in {server.name}"


def series(server: Server, selector: str, seconds: float) -> dict[str, dict[float, float]]:
    """Values by time, by the series' labels without the replica."""
    found: dict[str, dict[float, float]] = {}
    for each in server.query(f"{selector}[{int(seconds)}s]"):
        labels = {k: v for k, v in each["metric"].items() if k not in ("replica", "cluster")}
        samples = found.setdefault(json.dumps(labels, sort_keys=True), {})
        samples |= {round(float(at), 3): float(value) for at, value in each["values"]}
    return found


def of_samples(fleet: Fleet, seconds: float) -> Iterator[Problem]:
    """No scrape is missing but in the outages of the server itself, and the store has all."""
    longest = MISSED_SCRAPES * fleet.interval
    for replica, server in fleet.replicas.items():
        away = [(start, end) for start, end in server.outages]
        here = series(server, "up", seconds)
        for labels, samples in here.items():
            for start, end in gaps(sorted(samples), longest, away):
                yield server.name, f"scraped {labels} not for {end - start:.0f} s"
        killed = [(start - UNSENT_SECONDS, start) for start, _ in away]
        killed += [(start - UNWRITTEN_SECONDS, start) for start, _ in fleet.store.outages]
        for selector in ("up", UPDATES):
            mine = series(server, selector, seconds)
            kept = series(fleet.store, f'{selector}{{replica="{replica}"}}', seconds + 60)
            lost = [
                at
                for labels, samples in mine.items()
                for at in samples.keys() - kept.get(labels, {}).keys()
                if at < time.time() - 60 and not any(a <= at <= b for a, b in killed)
            ]
            if lost:
                yield "store", f"lacks {len(lost)} samples of {selector} of {server.name}"
    both = series(fleet.store, "up", seconds)
    unwritten = [(start - UNWRITTEN_SECONDS, end) for start, end in fleet.store.outages]
    for labels, samples in both.items():
        for start, end in gaps(sorted(samples), longest, unwritten):
            yield "store", f"has no sample of {labels} for {end - start:.0f} s"


def backlog(server: Server) -> float:
    """Samples that wait to be sent to the store."""
    for line in server.get("/metrics").decode().splitlines():
        if line.startswith("prometheus_remote_storage_samples_pending{"):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def of_backlog(fleet: Fleet) -> Iterator[Problem]:
    """Nothing waits any longer than a moment to be sent."""
    for server in fleet.replicas.values():
        until = time.monotonic() + 120
        while backlog(server) > 10_000 and time.monotonic() < until:
            time.sleep(1)
        if time.monotonic() >= until:
            yield server.name, "still has a backlog"


def of_files(fleet: Fleet, latched: set[str]) -> Iterator[Problem]:
    """No file is left of what has ended, and the latches of what lives are kept."""
    for node in fleet.nodes.values():
        due = time.time() - KEPT_SECONDS
        trainings = node.trainings.values()
        right = {str(training.pid) for training in trainings}
        right |= {pid for each in trainings for pid, at in each.ended.items() if at > due}
        found = {path.name for path in node.pages.iterdir()} - SHARE_FILES
        left = {name for name in found if name.split("-")[0] not in right}
        if left:
            yield node.name, f"has {sorted(left)} in its share"
        for run_id in node.trainings:
            directory = node.disk.path / run_id
            names = {path.name for path in directory.iterdir()}
            kept = [name for name in names if name.endswith(".latches.json")]
            if bool(kept) is not (run_id in latched):
                yield run_id, f"has {len(kept)} latch files"
            strange = {n for n in names if not n.endswith((".latches.json", ".final.prom"))}
            if strange:
                yield run_id, f"left {sorted(strange)}"


def all_problems(fleet: Fleet, latched: set[str], seconds: float) -> list[Problem]:
    """Everything that is not whole."""
    return [
        *of_backlog(fleet),
        *of_latches(fleet, latched),
        *of_runs(fleet),
        *of_samples(fleet, seconds),
        *of_files(fleet, latched),
    ]
