"""From a faulty update to the notification, by a real Prometheus and a real Alertmanager."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from support.alertmanager import alertmanager
from support.command import environment
from support.programs import wait_until
from support.prometheus import prometheus

TESTS = Path(__file__).parents[1]
RULES = sorted((TESTS.parent / "alerts" / "rules").glob("*.yml"))
RUNS = [f"night-{number}" for number in range(10)]


def test_a_trainer_that_latches_and_raises_always_notifies_and_keeps_firing(
    tmp_path: Path,
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "support" / "trainer.py"), "raise", run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(
                PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
                TRAINER_GO="1",
                ESPER_EXPORTER_LINGER="45",
                ESPER_EXPORTER_STATE_DIR=str(tmp_path / "state"),
            ),
        )
        for run in RUNS
    ]
    took: list[float] = []
    try:
        addresses = []
        for process in processes:
            assert process.stdout is not None
            addresses.append(process.stdout.readline().strip().removeprefix("http://"))
        with alertmanager(tmp_path / "alertmanager") as receiver:
            options = {"rule_files": RULES, "alertmanagers": [receiver.address]}
            folder = tmp_path / "prometheus"
            with prometheus(folder, addresses, **options) as server:  # type: ignore[arg-type]
                server.wait_for("count(esper_run_finished == 0)", float(len(RUNS)))
                for run, process in zip(RUNS, processes, strict=True):
                    assert process.stdin is not None
                    began = time.monotonic()
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    wait_until(
                        lambda run=run: receiver.notified(  # type: ignore[misc]
                            "on-call-latched", run_id=run, head="op", kind="nan"
                        ),
                        f"a notification for {run}",
                        30.0,
                    )
                    (first, *_) = receiver.notified("on-call-latched", run_id=run, head="op")
                    took.append(first - began)
                print(f"notified after median {median(took):.2f} s, max {max(took):.2f} s")
                for process in processes:
                    assert process.wait(60) == 1
                server.wait_for("sum(up)", 0.0)
            with prometheus(folder, addresses, **options) as server:  # type: ignore[arg-type]
                # What the rules say now, not what the database kept of before.
                wait_until(
                    lambda: (
                        sum(
                            alert["labels"]["alertname"] == "EsperHeadNonFiniteLatched"
                            for alert in server.api("alerts")["alerts"]
                            if alert["state"] == "firing"
                        )
                        == len(RUNS)
                    ),
                    "still firing after the restart",
                )
    finally:
        for process in processes:
            process.kill()
            process.communicate()
