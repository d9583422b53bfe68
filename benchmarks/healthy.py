"""Which alerts healthy runs raise: none may.

    python -m benchmarks.healthy [--minutes M] [--intervals 15 30 60]

Five runs without a fault: two recordings of the real system, an A/B pair in one process, the demo,
and a policy with heads named by its author. The recordings are replayed at their pace, as if they
happened now, and their processes leave when they are done; the demo and the policy train until the
time is up, and end by SIGTERM, after which they stay for two of the longest intervals, as
docs/OPERATIONS.md advises. Real Prometheus servers scrape all of them and evaluate the shipped
rules at each interval, until five minutes after the last process has gone. Prints every alert that
fired or was pending; the exit code is 1 if one fired. Needs Prometheus and torch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from esper_exporter import Exporter
from support.command import environment
from support.programs import wait_until
from support.prometheus import prometheus

ROOT = Path(__file__).parents[1]
RULES = sorted((ROOT / "alerts" / "rules").glob("*.yml"))
RECORDINGS = {
    "recording run1": ROOT / "tests/recordings/run1.telemetry.jsonl.gz",
    "recording healthy3": ROOT / "tests/recordings/faults/healthy3.jsonl.gz",
}
PACE = 0.05
"""Seconds that a step of the policy's environment is made to take: an update every 3 s."""
OWN_HEADS = f"""
import time
from examples import ppo_loop
step = ppo_loop.CartPoles.step
def slowly(self, actions):
    time.sleep({PACE})
    return step(self, actions)
ppo_loop.CartPoles.step = slowly
ppo_loop.main(1_000_000)
"""


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a recording."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def when(event: dict[str, Any]) -> datetime:
    """The time of an event."""
    return datetime.fromisoformat(event["timestamp"])


def ab_pair() -> list[dict[str, Any]]:
    """One recording as of group A, then as of group B."""
    first = [{**event, "group_id": "A"} for event in events(RECORDINGS["recording run1"])]
    later = when(first[-1]) - when(first[0]) + timedelta(seconds=1)
    second = [
        {
            **event,
            "group_id": "B",
            "event_id": f"B {event['event_id']}",
            "timestamp": (when(event) + later).isoformat(),
        }
        for event in first
    ]
    return [*first, *second]


def replay(exporter: Exporter, recorded: Sequence[dict[str, Any]]) -> None:
    """Emit events at their pace, as of now, and let the process leave."""
    shift = datetime.now(UTC) - when(recorded[0])
    for event in recorded:
        due = when(event) + shift
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
        exporter.emit({**event, "timestamp": due.isoformat()})
    exporter.close()


@contextmanager
def process(command: Sequence[str], log: Path, **variables: str) -> Iterator[str]:
    """A training in a separate process; its address."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    found: list[str] = []

    def serving() -> bool:
        match = re.search(r"serving http://([^/]+)/", log.read_text())
        found.extend(match.groups() if match else ())
        return bool(found)

    try:
        wait_until(serving, f"{command} serves", 180.0, every=0.5)
        yield found[0]
    finally:
        running.terminate()
        try:
            running.wait(float(variables["ESPER_EXPORTER_TERM_LINGER"]) + 60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.healthy", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--intervals", nargs="+", type=int, default=[15, 30, 60], help="seconds")
    options = parser.parse_args()
    stays = f"{2 * max(options.intervals) + 10}"
    replayed = {name: events(path) for name, path in RECORDINGS.items()}
    replayed["A/B pair"] = ab_pair()
    exporters = {
        name: Exporter(
            port=0,
            run_id=name.replace(" ", "-").replace("/", "-"),
            state_dir="off",
            gpu_vitals="off",
            linger=float(stays),
        )
        for name in replayed
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        trainings = stack.enter_context(ExitStack())
        addresses = {
            "demo": trainings.enter_context(
                process(
                    [sys.executable, "-m", "esper_exporter", "demo", "--port", "0"],
                    folder / "demo.log",
                    ESPER_EXPORTER_LINGER=stays,
                    ESPER_EXPORTER_TERM_LINGER=stays,
                )
            ),
            "own heads": trainings.enter_context(
                process(
                    [sys.executable, "-c", OWN_HEADS],
                    folder / "own.log",
                    PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "exporter")]),
                    ESPER_EXPORTER_PORT="0",
                    ESPER_EXPORTER_LINGER=stays,
                    ESPER_EXPORTER_TERM_LINGER=stays,
                    OMP_NUM_THREADS="1",
                )
            ),
        }
        for run, exporter in exporters.items():
            exporter.start()
            addresses[run] = f"127.0.0.1:{exporter.port}"
        servers = {
            interval: stack.enter_context(
                prometheus(
                    folder / str(interval),
                    sorted(addresses.values()),
                    interval=f"{interval}s",
                    # By which exporters tell servers of one address apart.
                    scrape={"scrape_timeout": f"{10 + number}s"},
                    rule_files=RULES,
                )
            )
            for number, interval in enumerate(options.intervals)
        }
        began = time.time()
        threads = [
            threading.Thread(target=replay, args=(exporters[run], recorded))
            for run, recorded in replayed.items()
        ]
        for thread in threads:
            thread.start()
        time.sleep(60 * options.minutes)
        trainings.close()
        # Long enough for what a process that is gone would raise.
        time.sleep(300)
        for thread in threads:
            thread.join()
        window = f"{int(time.time() - began) + 60}s"
        print(
            "| run | " + " | ".join(f"{interval} s: scrapes, fired" for interval in servers) + " |"
        )
        print("|---" * (len(servers) + 1) + "|")
        fired = 0
        for run, address in sorted(addresses.items()):
            cells = []
            for server in servers.values():
                ours = f'instance="{address}"'
                pages = server.value(f"sum(sum_over_time(up{{{ours}}}[{window}]))")
                raised = _alerts(server, f'alertstate="firing",{ours}', window)
                fired += len(raised)
                cells.append(f"{pages or 0:.0f}, {', '.join(sorted(raised)) or 'none'}")
            print(f"| {run} | " + " | ".join(cells) + " |")
        for interval, server in servers.items():
            every = _alerts(server, 'alertstate="firing",instance=""', window)
            waiting = _alerts(server, 'alertstate="pending"', window)
            fired += len(every)
            print(
                f"{interval} s: fired for no process: {', '.join(sorted(every)) or 'none'};",
                end=" ",
            )
            print(f"pending: {', '.join(sorted(waiting)) or 'none'}")
            updates = server.query(
                f"max by (run_id) (last_over_time(esper_tamiyo_updates_total[{window}]))"
            )
            print(
                "  updates: "
                + ", ".join(f"{dict(k)['run_id']} {v:.0f}" for k, v in updates.items())
            )
    return 1 if fired else 0


def _alerts(server: Any, matchers: str, window: str) -> set[str]:
    """Names of alerts that ever were, but for the one that always is."""
    alerts = f'ALERTS{{alertname!="EsperWatchdog",{matchers}}}'
    found = server.query(f"count by (alertname) (count_over_time({alerts}[{window}]))")
    return {dict(labels)["alertname"] for labels in found}


if __name__ == "__main__":
    sys.exit(main())
