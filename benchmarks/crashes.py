"""Which crashes are notified: ways to die × scrape intervals × times, behind a node agent.

    python -m benchmarks.crashes [--intervals 1 5 15] [--times N] [--settle S] [--without-nan]

Each process latches a NaN in one head and dies at once, by an uncaught exception, SIGTERM,
``os._exit`` or SIGKILL. A node agent serves their pages, a real Prometheus scrapes it and evaluates
the shipped rules at the interval, and a real Alertmanager with the shipped routes and waits sends
its notifications to this process. Eight ranks of one more run die of one fault. Then Prometheus and
Alertmanager are restarted, one after the other.

Prints how many faults were notified by how many messages, and how many messages came after the
restarts; the exit code is 1 unless all were, by two messages a fault and three for the eight ranks
at most, none came again, and none was about no run: a machine that is overloaded says so.
``--without-nan`` has no latch: then an end by SIGTERM, which someone asked for, is not a fault.
Needs Prometheus and Alertmanager, and about eleven minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.alertmanager import Alertmanager, alertmanager
from support.command import environment
from support.ports import free_port
from support.prometheus import Prometheus, prometheus

ROOT = Path(__file__).parents[1]
TRAINER = ROOT / "tests" / "agent" / "trainer.py"
RULES = sorted((ROOT / "alerts" / "rules").glob("*.yml"))
WAYS = {
    "exception": ["raise"],
    "SIGTERM": ["sigterm", "pause"],
    "os._exit": ["exit", "3"],
    "SIGKILL": ["sigkill"],
}
RANKS = 8
SCRAPED_ANEW = 60.0
"""Seconds from the restart of Prometheus to that of Alertmanager."""
SENT_ANEW = 180.0
"""Seconds after that in which what is sent again comes: Prometheus sends its alerts once a minute,
and the longest wait of a group is 90 s."""
SILENT = ("dead-mans-switch", "nobody")
"""Receivers whose messages no one reads."""


@dataclass
class Outcome:
    """What came of the faults at one interval."""

    interval: int
    reported: Counter[str] = field(default_factory=Counter)
    """Faults that were notified, by way."""
    most: int = 0
    """Messages about the fault that had most."""
    mean: float = 0.0
    slowest: float = 0.0
    """Seconds from the first death to the last first message."""
    of_ranks: int = 0
    """Messages about the run of eight ranks."""
    others: list[str] = field(default_factory=list)
    """Messages that are about no run."""
    again: list[str] = field(default_factory=list)
    """Messages about a run after a restart."""


def messages(server: Alertmanager) -> list[tuple[str, str]]:
    """Run and text of each message to a person."""
    found = []
    for body in list(server.messages):
        if body["receiver"] not in SILENT:
            run = next(
                (a["labels"]["run_id"] for a in body["alerts"] if "run_id" in a["labels"]), ""
            )
            names = sorted({alert["labels"]["alertname"] for alert in body["alerts"]})
            found.append((run, f"{body['receiver']} {body['status']}: {', '.join(names)}"))
    return found


@contextmanager
def agent(share: Path) -> Iterator[str]:
    """A node agent's address."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "esper_exporter", "agent", str(share)),
            *("--port", str(port), "--no-vitals"),
        ],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


class Trainings:
    """Processes that wait for a line before they latch and die."""

    def __init__(self, share: Path, times: int, nan: bool) -> None:
        fault = ["nan", "op"] if nan else []
        runs = [(f"{way}-{n}", 0, steps) for way, steps in WAYS.items() for n in range(times)]
        runs += [("ranks", rank, WAYS["exception"]) for rank in range(RANKS)]
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, str(TRAINER), str(share), run, str(rank)),
                    *("update", "7", "ready", "wait", *fault, *steps),
                ],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for run, rank, steps in runs
        ]
        for process in self.processes:
            assert process.stdout is not None
            process.stdout.readline()

    def die(self) -> None:
        """Let all of them die, and wait until they have."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        for process in self.processes:
            process.wait(120)

    def close(self) -> None:
        """End those that still run."""
        for process in self.processes:
            process.kill()
            process.communicate()


def expected(times: int, nan: bool) -> dict[str, int]:
    """How many faults of each way have to be notified."""
    return {way: 0 if way == "SIGTERM" and not nan else times for way in WAYS}


def attempt(
    folder: Path, interval: int, times: int, settle: float, nan: bool, turn: threading.Lock
) -> Outcome:
    """All deaths of one interval, and both restarts."""
    share = folder / "share"
    share.mkdir(parents=True, mode=0o700)
    port = free_port()
    outcome = Outcome(interval)
    with ExitStack() as stack:
        address = stack.enter_context(agent(share))
        sends = ExitStack()
        stack.callback(sends.close)
        receiver = sends.enter_context(alertmanager(folder / "am", "90s", port))

        @contextmanager
        def server() -> Iterator[Prometheus]:
            with prometheus(
                folder / "prometheus",
                [address],
                interval=f"{interval}s",
                rule_files=RULES,
                alertmanagers=[f"127.0.0.1:{port}"],
            ) as running:
                yield running

        with server() as scraped:
            with turn:
                trained = Trainings(share, times, nan)
                stack.callback(trained.close)
                runs = len(trained.processes)
                scraped.wait_for("count(esper_run_active == 1)", float(runs), 180.0)
                began = time.monotonic()
                trained.die()
            limit = began + 2 * interval + 120.0
            wanted = sum(expected(times, nan).values()) + 1
            while (
                time.monotonic() < limit and len({r for r, _ in messages(receiver) if r}) < wanted
            ):
                time.sleep(0.2)
            outcome.slowest = time.monotonic() - began
            # A group's later messages come with its next interval, five minutes after the first.
            time.sleep(settle)
        first = messages(receiver)
        with server():
            time.sleep(SCRAPED_ANEW)
            after = messages(receiver)[len(first) :]
            sends.close()
            receiver = sends.enter_context(alertmanager(folder / "am", "90s", port))
            time.sleep(SENT_ANEW)
            after += messages(receiver)
    count = Counter(run for run, _ in first)
    outcome.reported = Counter(run.rpartition("-")[0] for run in count if "-" in run)
    outcome.of_ranks = count.pop("ranks", 0)
    outcome.again = [words for run, words in after if run]
    outcome.others = [words for run, words in [*first, *after] if not run]
    count.pop("", None)
    outcome.most = max(count.values(), default=0)
    outcome.mean = sum(count.values()) / max(1, len(count))
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.crashes", description=__doc__)
    parser.add_argument("--intervals", nargs="+", type=int, default=[1, 5, 15], help="seconds")
    parser.add_argument("--times", type=int, default=10, help="deaths for each way (default 10)")
    parser.add_argument("--settle", type=float, default=305.0, help="seconds to wait for more")
    parser.add_argument("--without-nan", action="store_true")
    options = parser.parse_args()
    nan = not options.without_nan
    wanted = expected(options.times, nan)
    turn = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="esper-", dir="/dev/shm") as name:
        os.chmod(name, 0o700)
        with ThreadPoolExecutor(len(options.intervals)) as pool:
            outcomes = list(
                pool.map(
                    lambda interval: attempt(
                        *(Path(name) / str(interval), interval, options.times),
                        *(options.settle, nan, turn),
                    ),
                    options.intervals,
                )
            )
    print(
        f"| scrape | {' | '.join(WAYS)} | messages a fault: mean, most | {RANKS} ranks |"
        " last first message after | again | about no run |"
    )
    print("|---" * (len(WAYS) + 6) + "|")
    for one in outcomes:
        reported = " | ".join(f"{one.reported[way]} of {wanted[way]}" for way in WAYS)
        print(
            f"| {one.interval} s | {reported} | {one.mean:.2f}, {one.most} | {one.of_ranks} |"
            f" {one.slowest:.0f} s | {len(one.again)} | {len(one.others)} |"
        )
    for one in outcomes:
        for words in (*one.others, *one.again):
            print(f"  {one.interval} s: {words}")
    good = all(
        dict(one.reported) == {way: n for way, n in wanted.items() if n}
        and one.most <= 2
        and 1 <= one.of_ranks <= 3
        and not one.again
        and not one.others
        for one in outcomes
    )
    every = sum(sum(one.reported.values()) for one in outcomes)
    print(f"notified: {every} of {len(outcomes) * sum(wanted.values())}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
