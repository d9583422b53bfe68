"""Whether a machine that is overloaded has its living trainings declared dead.

    python -m benchmarks.overload [--load N] [--trainings N] [--seconds S]

Trainings that compute and report as fast as they can, N busy processes beside them, and a real
Prometheus that scrapes each second with a timeout of a second and evaluates the shipped rules.
Prints how many scrapes failed, and what EsperRunDied was meanwhile; then one training is killed.
The exit code is 1 if EsperRunDied fired for one that lives, unless no scrape of it had succeeded
for five minutes, or not within seven minutes for the one that was killed. All of it competes for
the same processors: start it with ``nice`` where others work. Needs Prometheus.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from benchmarks.crashes import TRAINER
from support.command import environment
from support.ports import free_port
from support.programs import end, wait_until
from support.prometheus import Prometheus, prometheus

RULES = sorted((Path(__file__).parents[1] / "alerts" / "rules").glob("*.yml"))
TRAINING = """
import sys, time
sys.path.insert(0, sys.argv[3])
from esper_exporter import Exporter
from trainer import STARTED
exporter = Exporter(
    run_id=sys.argv[1], port=int(sys.argv[2]), state_dir="off", share="off", gpu_vitals="off"
)
exporter.start()
exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(), "data": STARTED})
batch = 0
while True:
    sum(i * i for i in range(300_000))
    batch += 1
    data = {"batch_idx": batch, "episodes_completed": batch, "total_episodes": 10**9}
    exporter.emit({"event_type": "BATCH_EPOCH_COMPLETED", "timestamp": time.time(), "data": data})
"""
LATEST = 420.0
"""Seconds within which the death must be reported: the five minutes of one that times out, the
minute that the alert waits, and one for what is late on such a machine."""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block."""
    started = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        end(started)


def died(server: Prometheus, state: str, window: str) -> set[str]:
    """The runs for which EsperRunDied was in a state within a time."""
    alerts = f'ALERTS{{alertname="EsperRunDied",alertstate="{state}"}}'
    found = server.query(f"count by (run_id) (count_over_time({alerts}[{window}]))")
    return {dict(labels)["run_id"] for labels in found}


def unseen(server: Prometheus, address: str, window: str) -> float:
    """The longest time between two scrapes of an address that succeeded, seconds."""
    scrapes = server.samples(f'up{{instance="{address}"}}', window)
    seen = [at for samples in scrapes.values() for at, value in samples if value == 1.0]
    return max((b - a for a, b in pairwise([*seen, time.time()])), default=float("inf"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.overload", description=__doc__)
    parser.add_argument("--load", type=int, default=50, help="busy processes")
    parser.add_argument("--trainings", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=150.0, help="that all live")
    options = parser.parse_args()
    ports = {f"run-{number}": free_port() for number in range(options.trainings)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trainings = {
            run: stack.enter_context(
                process(sys.executable, "-c", TRAINING, run, str(port), str(TRAINER.parent))
            )
            for run, port in ports.items()
        }
        addresses = [f"127.0.0.1:{port}" for port in ports.values()]
        server = stack.enter_context(prometheus(Path(folder), addresses, rule_files=RULES))
        server.wait_for("count(esper_run_active == 1)", options.trainings, 180.0)
        for _ in range(options.load):
            stack.enter_context(process("sh", "-c", "while :; do :; done"))
        time.sleep(options.seconds)
        window = f"{options.seconds:.0f}s"
        scrapes = server.value(f"sum(count_over_time(up[{window}]))") or 0.0
        answered = server.value(f"sum(sum_over_time(up[{window}]))") or 0.0
        slowest = server.value(f"max(max_over_time(scrape_duration_seconds[{window}]))") or 0.0
        living = [run for run, each in trainings.items() if each.poll() is None]
        fired = died(server, "firing", window)
        print(
            f"load {os.getloadavg()[0]:.0f}, {len(living)} of {len(trainings)} trainings live;"
            f" {scrapes - answered:.0f} of {scrapes:.0f} scrapes failed, the slowest took"
            f" {slowest:.1f} s"
        )
        print(
            f"EsperRunDied in {window}: fired for {len(fired)},"
            f" pending for {len(died(server, 'pending', window) - fired)}"
        )
        victim = living[0]
        trainings[victim].kill()
        killed = time.monotonic()
        wait_until(
            lambda: victim in died(server, "firing", "1m"), "the death is reported", LATEST, 1.0
        )
        after = time.monotonic() - killed
        others = died(server, "firing", f"{options.seconds + after:.0f}s") - {victim}
        wrong = [run for run in others if unseen(server, f"127.0.0.1:{ports[run]}", "1h") < 300]
        print(
            f"killed {victim}: fired {after:.0f} s later; fired for {len(others)} others, of which"
            f" {len(wrong)} had answered a scrape within five minutes"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
