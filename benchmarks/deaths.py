"""Deaths of training processes, and what the node's page says of each.

usage: python -m benchmarks.deaths [--repeat N] [--at-once N]

Each of twelve deaths (SIGKILL, SIGSEGV, SIGABRT, ``os._exit``, an uncaught exception, the kernel's
out-of-memory killer, each also right after a NaN), N times, once under ``esper-exporter run`` and
once beside an agent alone. Checked are the reason, the last update that was published a second
before, and the latch of a NaN in the moment of death. The out-of-memory killer needs a control
group with a limit: where this process may not make one, it is left out, and said so. Exits with 1
if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import resource
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.control_group import MemoryGroup

TRAINER = Path(__file__).parents[1] / "tests" / "agent" / "trainer.py"
DEATHS = {
    "sigkill": ("killed", ["sigkill"]),
    "sigsegv": ("segfault", ["sigsegv"]),
    "sigabrt": ("abort", ["sigabrt"]),
    "exit": ("exit", ["exit", "3"]),
    "raise": ("exception", ["raise"]),
    "oom": ("oom", ["oom"]),
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

    @property
    def run_id(self) -> str:
        """A name that no other case has."""
        way = "run" if self.wrapped else "agent"
        return f"{way}-{self.death}-{'nan' if self.nan else 'plain'}-{self.number}"

    def die(self, share: Path) -> None:
        """Start a trainer that shares its page there, and wait until it has died."""
        steps = ["update", "7", "ready"] + (["nan", "op"] if self.nan else [])
        command = [
            *(sys.executable, str(TRAINER), str(share), self.run_id, "0"),
            *(*steps, *DEATHS[self.death][1]),
        ]
        if self.wrapped:
            head = [sys.executable, "-m", "esper_exporter", "run", "--agent", str(share), "--"]
            command = head + command
        group = MemoryGroup() if self.death == "oom" else None
        try:
            subprocess.run(
                command if group is None else [*group.within(), *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                check=False,
            )
        finally:
            if group is not None:
                group.remove()


def all_cases(repeat: int) -> list[Case]:
    """Every death in both ways, ``repeat`` times; none of them dumps core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    deaths = set(DEATHS)
    try:
        MemoryGroup().remove()
    except OSError as problem:
        print(f"not tried: the out-of-memory killer, no control group can be made ({problem})")
        deaths.discard("oom")
    return [
        Case(death, nan, wrapped, number)
        for wrapped, death, nan, number in product(
            (True, False), sorted(deaths), (False, True), range(repeat)
        )
    ]


def try_one(case: Case) -> list[str]:
    """What was wrong on the page after this death; nothing is good."""
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        share = Path(folder) / "share"
        share.mkdir(mode=0o700)
        agent = NodeAgent(
            AgentSettings(shares=[share], port=0, gpu_vitals="off", host_vitals="off")
        )
        agent.start()
        try:
            case.die(share)
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


def report(cases: list[Case], found: list[list[str]]) -> int:
    """Print how many of each way were right, and what was wrong; an exit code."""
    for wrapped in (True, False):
        mine = [(c, w) for c, w in zip(cases, found, strict=True) if c.wrapped is wrapped]
        good = sum(not wrong for _, wrong in mine)
        print(f"{'esper-exporter run' if wrapped else 'agent alone'}: {good} of {len(mine)} right")
        for case, wrong in mine:
            if wrong:
                print(f"  {case.run_id}: {'; '.join(wrong)}")
    return int(any(found))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.deaths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    cases = all_cases(options.repeat)
    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(try_one, cases))
    return report(cases, found)


if __name__ == "__main__":
    sys.exit(main())
