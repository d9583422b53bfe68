"""Restarted trainers and many short runs: what stays of them on the agent's page and in its share.

usage: python -m benchmarks.restarts [--restarts N] [--runs N] [--keep SECONDS]

First one run is started again and again: after each start the page must show it once, alive, and
without its predecessors' end. Then come short runs under names of their own, which end in turn by
SIGKILL, by os._exit, after a NaN and well. The agent keeps an ended process for ``--keep`` seconds,
shorter than its default as the runs come faster than in a real hour, so that it holds about as
many at a time. Printed are its memory, its open descriptors, the files of the share and the samples
of its page, at each quarter and after all pages have been retired. Exits with 1 if a series or a
file is left, or memory or descriptors grew from the second quarter on by more than a tenth.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.death_alerts import agent
from esper_exporter import Exporter
from esper_exporter.agent.layout_log import own_schema

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "agent"))

from trainer import STARTED, update

ENDINGS = ("sigkill", "exit", "nan", "well")
GROWTH = 1.1
AT_ONCE = 4
SHARE_FILES = {"agent.claim", "agent.lock"}
"""What an agent itself keeps in its share."""


def train(share: Path, run_id: str, ending: str, ready: int) -> None:
    """A training of one update, in a forked child: reports ``ready``, and ends at SIGCONT."""
    exporter = Exporter(
        share=share,
        run_id=run_id,
        port="off",
        state_dir="off",
        linger=0.0,
        gpu_vitals="off",
        host_vitals="off",
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    exporter.start()
    exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(), "data": STARTED})
    exporter.emit(update(1, "op" if ending == "nan" else None))
    exporter.keep()
    os.write(ready, b".")
    signal.sigwait({signal.SIGCONT})
    if ending == "well":
        exporter.close()
        os._exit(0)
    if ending == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def trainer(share: Path, run_id: str, ending: str) -> Iterator[None]:
    """A training that has published; it ends, and is waited for, when the context does."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            train(share, run_id, ending, writing)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b".", f"{run_id} did not start"
        yield
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)


@dataclass(frozen=True)
class Node:
    """An agent's process and its share."""

    share: Path
    address: str
    process: psutil.Process

    def samples(self, name: str = "") -> list[str]:
        """The samples of runs on the page, as a Prometheus server fetches it."""
        request = urllib.request.Request(
            f"http://{self.address}/metrics",
            headers={"User-Agent": "Prometheus/2.53", "X-Prometheus-Scrape-Timeout-Seconds": "60"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            page = answer.read().decode()
        return [
            line
            for line in page.splitlines()
            if line.startswith(name) and not line.startswith("#") and 'run_id="' in line
        ]

    def files(self) -> set[str]:
        """Every file of the share."""
        found = set()
        for path in self.share.rglob("*"):
            if not path.is_dir():
                found.add(str(path.relative_to(self.share)))
        return found

    def measure(self, when: str) -> tuple[float, int]:
        """Print and return the agent's memory in bytes and the number of its descriptors."""
        samples = len(self.samples())
        memory = float(self.process.memory_info().rss)
        descriptors = self.process.num_fds()
        print(
            f"{when:>12}: {memory / 2**20:6.1f} MiB, {descriptors:4} descriptors,"
            f" {len(self.files()):5} files, {samples:7,} samples of runs"
        )
        return memory, descriptors


def restart(node: Node, times: int) -> int:
    """Start one run again and again; how often the page was wrong meanwhile."""
    wrong = 0
    expected = 0
    for number in range(times):
        with trainer(node.share, "night-7", ENDINGS[number % 3]):
            samples = node.samples()
            lit = {line.rpartition(" ")[0] for line in samples}
            failed = [s for s in samples if s.startswith("esper_run_failed") and s.endswith(" 1.0")]
            expected = expected or len(samples)
            good = len(lit) == len(samples) and not failed
            good &= len(node.samples("esper_run_active")) == 1
            # The first process of a run shows no older end; what it shows is what all must show.
            good &= abs(len(samples) - expected) <= expected // 10
            wrong += not good
    return wrong


def short_runs(node: Node, runs: int) -> list[tuple[float, int]]:
    """Runs one after the other, a few at a time; the agent's measures at each quarter."""
    measures = []
    for first in range(0, runs, AT_ONCE):
        children = [
            trainer(node.share, f"short-{number}", ENDINGS[number % len(ENDINGS)])
            for number in range(first, min(first + AT_ONCE, runs))
        ]
        for child in children:
            child.__enter__()
        for child in children:
            child.__exit__(None, None, None)
        if len(measures) < 4 * (first + AT_ONCE) // runs:
            measures.append(node.measure(f"{first + AT_ONCE} runs"))
        elif first % (10 * AT_ONCE) == 0:
            node.samples()
    return measures


def wait_for_retirement(node: Node, seconds: float) -> bool:
    """Wait until no page is left; whether there is none."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not node.samples() and node.files() <= SHARE_FILES:
            return True
        time.sleep(1.0)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.restarts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=float, default=30.0)
    options = parser.parse_args()
    own_schema()  # made once before the forks, not in each child
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        share = Path(folder) / "share"
        share.mkdir(mode=0o700)
        with agent(share, "--keep", str(options.keep)) as (address, pid):
            node = Node(share, address, psutil.Process(pid))
            node.measure("at first")
            wrong = restart(node, options.restarts)
            print(f"{options.restarts} restarts of one run, {wrong} times wrong meanwhile")
            gone = wait_for_retirement(node, 10 * options.keep)
            node.measure("retired")
            measures = short_runs(node, options.runs)
            ends = wait_for_retirement(node, 10 * options.keep)
            node.measure("retired")
            left = node.files() - SHARE_FILES
    first, last = measures[1], measures[-1]
    grown = any(now > before * GROWTH for before, now in zip(first, last, strict=True))
    print(f"left: {len(left)} files; {'grown' if grown else 'not grown'}")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(wrong > 0 or not gone or not ends or bool(left) or grown)


if __name__ == "__main__":
    sys.exit(main())
