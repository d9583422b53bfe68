"""Deaths of training processes, and what the node's page says of each.

usage: python -m benchmarks.deaths [--repeat N] [--at-once N]

Each of ten deaths (SIGKILL, SIGSEGV, SIGABRT, ``os._exit``, an uncaught exception, each also right
after a NaN), N times, once under ``esper-exporter run`` and once beside an agent alone. Checked are
the reason, the last update that was published a second before, and the latch of a NaN in the
moment of death. The kernel's out-of-memory killer is tried in tests/agent, where a control group
with a limit can be made.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.serve.negotiation import negotiate

TRAINER = Path(__file__).parents[1] / "tests" / "agent" / "trainer.py"
DEATHS = {
    "sigkill": ("killed", ["sigkill"]),
    "sigsegv": ("segfault", ["sigsegv"]),
    "sigabrt": ("abort", ["sigabrt"]),
    "exit": ("exit", ["exit", "3"]),
    "raise": ("exception", ["raise"]),
}


@dataclass(frozen=True)
class Case:
    """One death."""

    death: str
    nan: bool
    wrapped: bool
    number: int

    @property
    def reason(self) -> str:
        """What the page must say."""
        if self.death == "raise":
            return "nonfinite" if self.nan else "exception"
        return DEATHS[self.death][0] if self.wrapped else "died"


def try_one(case: Case) -> list[str]:
    """What was wrong on the page after this death; nothing is good."""
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        share = Path(folder) / "share"
        share.mkdir(mode=0o700)
        steps = ["update", "7", "ready"] + (["nan", "op"] if case.nan else [])
        command = [
            *(sys.executable, str(TRAINER), str(share), "night", "0"),
            *(*steps, *DEATHS[case.death][1]),
        ]
        agent = NodeAgent(
            AgentSettings(shares=[share], port=0, gpu_vitals="off", host_vitals="off")
        )
        agent.start()
        try:
            if case.wrapped:
                head = [sys.executable, "-m", "esper_exporter", "run", "--agent", str(share), "--"]
                command = head + command
            subprocess.run(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                check=False,
            )
            return _wrong(case, agent)
        finally:
            agent.close()


def _wrong(case: Case, agent: NodeAgent) -> list[str]:
    deadline = time.monotonic() + 30
    while True:
        page = agent.render(negotiate(None), False).decode()
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        reasons = [
            dict(key[1:])["reason"]
            for key, value in samples.items()
            if key[0] == "esper_run_failed" and value == 1.0
        ]
        if reasons or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    wrong = [] if reasons == [case.reason] else [f"reason {reasons}, not {case.reason}"]
    updates = [v for key, v in samples.items() if key[0] == "esper_tamiyo_updates_total"]
    if not updates or updates[0] < 1:
        wrong.append("the last update is missing")
    latched = [
        v
        for key, v in samples.items()
        if key[0] == "esper_tamiyo_head_nonfinite_latched"
        and {("head", "op"), ("kind", "nan")} <= set(key[1:])
    ]
    if case.nan and latched != [1.0]:
        wrong.append("the latch is missing")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.deaths", description=__doc__)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    cases = [
        Case(death, nan, wrapped, number)
        for wrapped, death, nan, number in product(
            (True, False), DEATHS, (False, True), range(options.repeat)
        )
    ]
    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(try_one, cases))
    for wrapped in (True, False):
        mine = [(c, w) for c, w in zip(cases, found, strict=True) if c.wrapped is wrapped]
        good = sum(not wrong for _, wrong in mine)
        print(f"{'esper-exporter run' if wrapped else 'agent alone'}: {good} of {len(mine)} right")
        for case, wrong in mine:
            if wrong:
                print(f"  {case}: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
