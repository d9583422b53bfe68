"""Deaths of training processes, and whether a person hears of each with its reason.

usage: python -m benchmarks.death_alerts [--repeat N] [--at-once N] [--interval 5s]

The deaths of benchmarks.deaths, all on one node: one agent, one Prometheus that scrapes it and
evaluates the shipped rules every ``--interval``, one Alertmanager with the shipped routes, and a
webhook in the place of every receiver. A death is right if the receiver on-call-latched got
EsperRunFailed with the run and the reason, and with a NaN also EsperHeadNonFiniteLatched for the
head, which silences EsperRunFailed{reason="nonfinite"}. An alert that says anything else of a run
is wrong. Exits with 1 if anything was wrong. Needs Prometheus and Alertmanager.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.deaths import Case, all_cases, report

# benchmarks.deaths puts the tests on the path.
from support.alertmanager import ALERTS, Alertmanager, alertmanager
from support.ports import free_port
from support.programs import end, wait_until
from support.prometheus import prometheus

RECEIVER = "on-call-latched"
SILENT = "nobody"
"""The receiver of alerts that only silence others."""
FAILED, LATCHED = "EsperRunFailed", "EsperHeadNonFiniteLatched"


def answers(port: int) -> bool:
    """Whether a server of this machine accepts connections there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def agent(share: Path, *options: str) -> Iterator[tuple[str, int]]:
    """A node agent as a process; its address once it answers, and its process identifier."""
    port = free_port()
    command = [sys.executable, "-m", "esper_exporter", "agent", str(share), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--no-vitals", *options],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        wait_until(lambda: answers(port), "the agent answers", seconds=60)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        end(process)


def expected(case: Case) -> list[dict[str, str]]:
    """The labels of the notifications that a person must get."""
    found = []
    if case.reason != "nonfinite":
        found.append({"alertname": FAILED, "reason": case.reason})
    if case.nan:
        found.append({"alertname": LATCHED, "head": "op", "kind": "nan"})
    return [{**each, "run_id": case.run_id} for each in found]


def fired_at(manager: Alertmanager, case: Case) -> float | None:
    """When the last of a case's notifications came, None while one is missing."""
    times = [manager.notified(RECEIVER, **labels)[:1] for labels in expected(case)]
    return max(each[0] for each in times) if all(times) else None


def wrong(manager: Alertmanager, case: Case) -> list[str]:
    """What a person heard wrong, or did not hear."""
    found = [
        f"not sent: {labels}"
        for labels in expected(case)
        if not manager.notified(RECEIVER, **labels)
    ]
    for _, receiver, alert in list(manager.received):
        labels = alert["labels"]
        if receiver == SILENT or alert["status"] != "firing":
            continue
        if labels.get("run_id") != case.run_id:
            continue
        right = [*expected(case), {"alertname": FAILED, "reason": case.reason}]
        if case.nan:
            # True as well, and silenced by the head's unless it comes first.
            right.append({"alertname": "EsperNonFiniteLatched", "source": "log_probs"})
        if not any(each.items() <= labels.items() for each in right):
            found.append(f"{receiver} got {labels['alertname']} {labels.get('reason', '')}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.death_alerts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--interval", default="5s", help="of scrapes and evaluations (default 5s)")
    parser.add_argument("--wait", type=float, default=120.0, help="seconds after the last death")
    options = parser.parse_args()
    cases = all_cases(options.repeat)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="esper-") as name:
        folder = Path(name)
        share = folder / "share"
        share.mkdir(mode=0o700)
        rules = sorted((ALERTS / "rules").glob("*.yml"))
        with (
            agent(share) as (target, _),
            alertmanager(folder / "alertmanager") as manager,
            prometheus(
                folder / "prometheus",
                [target],
                interval=options.interval,
                rule_files=rules,
                alertmanagers=[manager.address],
            ),
        ):

            def die(case: Case) -> float:
                case.die(share)
                return time.monotonic()

            with ThreadPoolExecutor(options.at_once) as pool:
                died = list(pool.map(die, cases))
            until = time.monotonic() + options.wait
            while time.monotonic() < until and any(fired_at(manager, c) is None for c in cases):
                time.sleep(1.0)
            time.sleep(5.0)  # what is wrong may come beside the last that is right
            found = [wrong(manager, case) for case in cases]
            times = [fired_at(manager, case) for case in cases]
    waited = [fired - at for fired, at in zip(times, died, strict=True) if fired is not None]
    code = report(cases, found)
    if waited:
        print(f"from death to message: {median(waited):.0f} s, at most {max(waited):.0f} s")
    print(f"{len(cases)} deaths in {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
