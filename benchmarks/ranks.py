"""Slow, stuck and healthy ranks of real data-parallel trainings: which does an alert name?

usage: python -m benchmarks.ranks [--trainings N] [--at-once N] [--window SECONDS]

Trainings of four gloo ranks each, with DistributedDataParallel and RankClock, behind one agent and
a real Prometheus that scrapes and evaluates every 5 s. In each training one rank's own part of a
step takes 30 % longer; EsperRankSlow must name it alone. Then a rank is stopped at a random moment;
EsperRankSilent must name it alone, within 30 s. Beside them trains one without a fault, of which
no alert may fire; what was scraped of it is replayed for an hour of promtool's time, too. The
rule for slow ranks looks back over ``--window`` and waits a fourth of that, not 10 min and 5 min.
Exits with 1 unless 19 of 20 slow ranks, all stuck ranks and no healthy one were named. Needs torch,
Prometheus and promtool.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.death_alerts import agent

# benchmarks.deaths, which that imports, puts the tests on the path.
from probes.ranks import main as train
from support.alertmanager import ALERTS
from support.ports import free_port
from support.programs import program, wait_until
from support.prometheus import Prometheus, prometheus

RULES = ALERTS / "rules" / "ranks.yml"
RANKS = 4
STEP_SECONDS = 0.4
SLOWER = 0.3
SCRAPE_SECONDS = 5
SILENT_SECONDS = 30.0
HOUR = 3600
SERIES = (
    "esper_rank_update",
    "esper_rank_last_update_timestamp_seconds",
    "esper_rank_step_seconds",
    "esper_rank_checked_update",
    "esper_rank_checked_gradient_norm",
)
ALERTNAMES = ("EsperRankSlow", "EsperRankSilent", "EsperRanksDisagree")


@dataclass
class Training:
    """Four ranks; ``slow`` is the rank that takes longer, None where none does."""

    run_id: str
    slow: int | None
    processes: list[int] = field(default_factory=list)
    stuck: int = -1
    stopped_at: float = 0.0

    def start(self, share: Path) -> None:
        """Start all ranks."""
        meeting = str(free_port())
        fault = [] if self.slow is None else ["slow", str(self.slow), str(SLOWER * STEP_SECONDS)]
        for rank in range(RANKS):
            variables = {
                "RANK": str(rank),
                "WORLD_SIZE": str(RANKS),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": meeting,
                "OMP_NUM_THREADS": "1",
                "RUN_ID": self.run_id,
                "STEP_SECONDS": str(STEP_SECONDS),
            }
            pid = os.fork()
            if not pid:
                # Forked, so that torch is loaded once and not by each rank.
                try:
                    os.environ |= variables
                    train(str(share), "100000", *fault)
                finally:
                    os._exit(1)
            self.processes.append(pid)

    def stop(self, rank: int) -> None:
        """Stop a rank, which does not end."""
        self.stuck, self.stopped_at = rank, time.time()
        os.kill(self.processes[rank], signal.SIGSTOP)

    def end(self) -> None:
        """End all ranks."""
        for pid in self.processes:
            os.kill(pid, signal.SIGKILL)
        while self.processes:
            os.waitpid(self.processes.pop(), 0)


def shorter_rules(window: int, folder: Path) -> Path:
    """The shipped rules, with the time that EsperRankSlow looks back and waits made shorter."""
    rules = yaml.safe_load(RULES.read_text())
    for rule in rules["groups"][0]["rules"]:
        if rule.get("alert") == "EsperRankSlow":
            assert "[10m]" in rule["expr"] and rule["for"] == "5m"
            rule["expr"] = rule["expr"].replace("[10m]", f"[{window}s]")
            rule["for"] = f"{window // 4}s"
    path = folder / "ranks.yml"
    path.write_text(yaml.safe_dump(rules))
    return path


def named(server: Prometheus, alertname: str, run_id: str, at: float | None = None) -> set[str]:
    """The ranks of a run that an alert names."""
    selector = f'ALERTS{{alertname="{alertname}",alertstate="firing",run_id="{run_id}"}}'
    parameters = {"query": selector} | ({} if at is None else {"time": at})
    found = server.api("query", **parameters)["result"]
    return {each["metric"].get("rank", "") for each in found}


def silence(server: Prometheus, training: Training) -> tuple[float | None, bool]:
    """Seconds until the stuck rank was named, None if it was not; and whether it alone was."""
    query = f'ALERTS{{alertname="EsperRankSilent",alertstate="firing",run_id="{training.run_id}"}}'
    first: float | None = None
    alone = True
    for labels, samples in server.samples(query).items():
        if dict(labels)["rank"] == str(training.stuck):
            first = samples[0][0] - training.stopped_at
        else:
            alone = False
    return first, alone


def an_hour(server: Prometheus, run_id: str, seconds: int, folder: Path) -> bool:
    """Whether no alert fires in an hour in which a run continues as it did when it was scraped."""
    now = time.time()
    steps = seconds // SCRAPE_SECONDS
    ages: dict[str, dict[str, list[float]]] = {}
    for name in SERIES:
        expression = f'{name}{{run_id="{run_id}"}}'
        if name.endswith("timestamp_seconds"):
            expression = f"time() - {expression}"
        result = server.api(
            "query_range",
            query=expression,
            start=now - steps * SCRAPE_SECONDS,
            end=now,
            step=SCRAPE_SECONDS,
        )["result"]
        for each in result:
            ages.setdefault(each["metric"]["rank"], {})[name] = [
                float(v) for _, v in each["values"]
            ]
    length = min(len(values) for found in ages.values() for values in found.values())
    updates = {rank: found["esper_rank_update"] for rank, found in ages.items()}
    behind = int(max(values[length - 1] - values[0] for values in updates.values())) + 1
    series = []
    for rank, found in ages.items():
        for name, values in found.items():
            series.append(
                {
                    "series": f'{name}{{job="esper",instance="n:1",run_id="r",rank="{rank}"}}',
                    "values": " ".join(
                        f"{_at(name, values[tick % length], tick, tick // length * behind):.9g}"
                        for tick in range(HOUR // SCRAPE_SECONDS)
                    ),
                }
            )
    test: dict[str, Any] = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{SCRAPE_SECONDS}s",
        "tests": [
            {
                "interval": f"{SCRAPE_SECONDS}s",
                "input_series": series,
                "alert_rule_test": [
                    {"eval_time": f"{at}s", "alertname": alert, "exp_alerts": []}
                    for alert in ALERTNAMES
                    for at in range(0, HOUR, 15)
                ],
            }
        ],
    }
    path = folder / "hour.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return done.returncode == 0


def _at(name: str, value: float, tick: int, later: int) -> float:
    """A recorded value as it is at a tick of the replay, ``later`` steps on."""
    if name.endswith("timestamp_seconds"):
        return tick * SCRAPE_SECONDS - value
    return value + later if name in ("esper_rank_update", "esper_rank_checked_update") else value


@dataclass
class Counts:
    """What was right."""

    slow: int = 0
    silent: int = 0
    healthy: bool = True
    latencies: list[float] = field(default_factory=list)


def trial(trainings: list[Training], window: int, chance: random.Random, counts: Counts) -> None:
    """Some trainings at once, the first of them healthy."""
    with tempfile.TemporaryDirectory(prefix="esper-") as name:
        folder = Path(name)
        share = folder / "share"
        share.mkdir(mode=0o700)
        rules = shorter_rules(window, folder)
        with (
            agent(share) as (target, _),
            prometheus(
                folder / "prometheus", [target], interval=f"{SCRAPE_SECONDS}s", rule_files=[rules]
            ) as server,
        ):
            try:
                for training in trainings:
                    training.start(share)
                wait_until(
                    lambda: (
                        (server.value("count(esper_rank_update > 5)") or 0)
                        == RANKS * len(trainings)
                    ),
                    "all ranks train",
                    seconds=500,
                    every=1.0,
                )
                time.sleep(window + window // 4 + 4 * SCRAPE_SECONDS)
                for training in trainings[1:]:
                    ranks = named(server, "EsperRankSlow", training.run_id)
                    counts.slow += ranks == {str(training.slow)}
                    if ranks != {str(training.slow)}:
                        print(f"  {training.run_id}: {training.slow} is slow, named: {ranks}")
                for training in trainings[1:]:
                    time.sleep(chance.random())
                    training.stop(chance.randrange(RANKS))
                time.sleep(SILENT_SECONDS + 2 * SCRAPE_SECONDS)
                for training in trainings[1:]:
                    seconds, alone = silence(server, training)
                    good = seconds is not None and seconds <= SILENT_SECONDS and alone
                    counts.silent += good
                    counts.latencies += [] if seconds is None else [seconds]
                    if not good:
                        print(f"  {training.run_id}: {training.stuck} is stuck: {seconds}, {alone}")
                healthy = trainings[0].run_id
                said = {
                    alert
                    for alert in ALERTNAMES
                    if server.query(f'ALERTS{{alertname="{alert}",run_id="{healthy}"}}')
                }
                quiet = an_hour(server, healthy, window, folder)
                if said or not quiet:
                    print(f"  the healthy training: {said or ''}")
                counts.healthy &= not said and quiet
            finally:
                for training in trainings:
                    training.end()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.ranks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--window", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    begun = time.monotonic()
    counts = Counts()
    for first in range(0, options.trainings, options.at_once):
        numbers = range(first, min(first + options.at_once, options.trainings))
        slow = [Training(f"slow-{number}", chance.randrange(RANKS)) for number in numbers]
        trial([Training(f"healthy-{first}", None), *slow], options.window, chance, counts)
    print(f"{counts.slow} of {options.trainings} slow ranks named, and no other")
    worst = max(counts.latencies, default=float("nan"))
    print(
        f"{counts.silent} of {options.trainings} stuck ranks named within {SILENT_SECONDS:.0f} s,"
        f" the last after {worst:.0f} s"
    )
    print(f"nothing said of healthy ranks, replayed for an hour too: {counts.healthy}")
    print(f"{time.monotonic() - begun:.0f} s")
    enough = counts.slow >= 0.95 * options.trainings and counts.silent == options.trainings
    return int(not (enough and counts.healthy))


if __name__ == "__main__":
    sys.exit(main())
