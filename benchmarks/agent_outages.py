"""An agent that is restarted and killed while runs live, begin, end and die: is anything lost?

usage: python -m benchmarks.agent_outages [--interval 2s]

A real Prometheus with the shipped rules scrapes one agent; a real Alertmanager with the shipped
routes sends to webhooks. One run lives all the time. Beside it one ends well, one dies while the
agent is restarted, one latches a NaN and dies while the agent, killed by SIGKILL, is away for more
than a minute, and one continues through that. Every death and latch must reach a person,
EsperAgentDown must fire and resolve; no alert may fire for the runs that live or ended well.
Takes about three minutes. Exits with 1 if anything was wrong. Needs Prometheus and Alertmanager.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.death_alerts import RECEIVER, SILENT, answers
from benchmarks.deaths import TRAINER

# benchmarks.deaths puts the tests on the path.
from support.alertmanager import ALERTS, Alertmanager, alertmanager
from support.ports import free_port
from support.programs import end, wait_until
from support.prometheus import Prometheus, prometheus

SECONDS = 240.0
"""Patience with a busy machine for whatever must come."""
TRUE_ANYWAY = {
    "EsperWatchdog",
    # These trainings send no more events, which is noticed on a machine that is slow enough.
    "EsperTelemetryStale",
    # True of a NaN, and silenced by the head's alert unless it comes first.
    "EsperNonFiniteLatched",
}
QUIET_SECONDS = 75.0
"""Longer than EsperRunDied and EsperAgentDown wait before they fire."""


@dataclass
class Scene:
    """The node, its servers, and what was checked so far."""

    share: Path
    port: int
    server: Prometheus
    manager: Alertmanager
    agent: subprocess.Popen[bytes]
    trainers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    wrong: int = 0

    def check(self, what: str, good: Callable[[], bool]) -> None:
        """Wait until something is so, and print whether it came to be."""
        until = time.monotonic() + SECONDS
        while not good() and time.monotonic() < until:
            time.sleep(0.5)
        self.record(what, good())

    def record(self, what: str, good: bool) -> None:
        """Print whether something is right."""
        self.wrong += not good
        print(f"{'ok   ' if good else 'WRONG'} {what}", flush=True)

    def said(self, run_id: str = "") -> set[str]:
        """The alerts that anybody was sent, of a run or of all."""
        names = {
            alert["labels"]["alertname"]
            for _, receiver, alert in self.manager.received
            if receiver != SILENT and run_id in ("", alert["labels"].get("run_id"))
        }
        return names - TRUE_ANYWAY

    def train(self, run_id: str, *steps: str) -> None:
        """Start a training, and wait until it has published."""
        trainer = subprocess.Popen(
            [sys.executable, str(TRAINER), str(self.share), run_id, "0", *steps],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.trainers[run_id] = trainer
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "ready\n"

    def go_on(self, run_id: str) -> None:
        """Let a training take its next steps."""
        stdin = self.trainers[run_id].stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()

    def scraped(self, run_id: str) -> bool:
        """Whether Prometheus has a living run."""
        return self.server.value(f'esper_run_active{{run_id="{run_id}"}}') == 1.0

    def sent(self, alertname: str, **labels: str) -> bool:
        """Whether a person was notified."""
        names = ("on-call", RECEIVER, "team")
        return any(self.manager.notified(name, alertname=alertname, **labels) for name in names)

    def firing(self, alertname: str) -> bool:
        """Whether an alert fires."""
        found = self.server.query(f'ALERTS{{alertname="{alertname}",alertstate="firing"}}')
        return bool(found)


def start_agent(share: Path, port: int) -> subprocess.Popen[bytes]:
    """An agent that answers."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "esper_exporter", "agent", str(share)),
            *("--port", str(port), "--no-vitals"),
        ],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_until(lambda: answers(port), "the agent answers", seconds=120)
    return process


@contextmanager
def scene(interval: str) -> Iterator[Scene]:
    """An agent, Prometheus and Alertmanager."""
    with tempfile.TemporaryDirectory(prefix="esper-") as name, ExitStack() as stack:
        folder = Path(name)
        share = folder / "share"
        share.mkdir(mode=0o700)
        port = free_port()
        manager = stack.enter_context(alertmanager(folder / "alertmanager"))
        server = stack.enter_context(
            prometheus(
                folder / "prometheus",
                [f"127.0.0.1:{port}"],
                interval=interval,
                rule_files=sorted((ALERTS / "rules").glob("*.yml")),
                alertmanagers=[manager.address],
            )
        )
        found = Scene(share, port, server, manager, start_agent(share, port))
        try:
            yield found
        finally:
            end(found.agent)
            for trainer in found.trainers.values():
                trainer.kill()
                trainer.communicate()


def play(node: Scene) -> None:
    """All scenes one after the other."""
    node.train("lives", "update", "1", "ready", "wait", "nan", "op", "pause")
    node.train("ends-well", "update", "1", "ready", "wait", "end")
    node.train("dies-in-restart", "update", "1", "ready", "wait", "sigkill")
    node.train("latches-in-outage", "update", "1", "ready", "wait", "nan", "op", "sigkill")
    node.train("goes-through", "update", "1", "ready", "wait", "update", "2", "pause")
    for run_id in node.trainers:
        node.check(f"{run_id} is scraped", lambda run_id=run_id: node.scraped(run_id))

    node.go_on("ends-well")
    node.trainers["ends-well"].wait(60)
    node.check(
        "the end of ends-well is scraped",
        lambda: node.server.value('max_over_time(esper_run_finished{run_id="ends-well"}[5m])') == 1,
    )

    node.agent.terminate()
    node.agent.wait(60)
    node.go_on("dies-in-restart")
    node.trainers["dies-in-restart"].wait(60)
    node.agent = start_agent(node.share, node.port)
    node.check(
        "a death during a restart reaches a person",
        lambda: node.sent("EsperRunFailed", run_id="dies-in-restart", reason="died"),
    )

    os.kill(node.agent.pid, signal.SIGKILL)
    node.agent.wait(60)
    killed_at = time.monotonic()
    node.go_on("latches-in-outage")
    node.trainers["latches-in-outage"].wait(60)
    node.go_on("goes-through")
    node.check("EsperAgentDown reaches a person", lambda: node.sent("EsperAgentDown"))
    print(f"      {time.monotonic() - killed_at:.0f} s after the agent was killed")
    node.agent = start_agent(node.share, node.port)
    node.check("EsperAgentDown ends", lambda: not node.firing("EsperAgentDown"))
    node.check(
        "a latch during the outage reaches a person",
        lambda: node.sent("EsperHeadNonFiniteLatched", run_id="latches-in-outage", head="op"),
    )
    node.check(
        "a death during the outage reaches a person",
        lambda: node.sent("EsperRunFailed", run_id="latches-in-outage", reason="died"),
    )
    node.check(
        "an update during the outage is not lost",
        lambda: node.server.value('esper_tamiyo_updates_total{run_id="goes-through"}') == 2,
    )
    time.sleep(QUIET_SECONDS)
    for run_id in ("lives", "goes-through"):
        node.check(f"{run_id} is scraped", lambda run_id=run_id: node.scraped(run_id))
    for run_id in ("lives", "goes-through", "ends-well"):
        said = node.said(run_id)
        node.record(f"no message about {run_id} {said or ''}", not said)
    other = node.said() - {"EsperRunFailed", "EsperHeadNonFiniteLatched", "EsperAgentDown"}
    node.record(f"no other message {other or ''}", not other)
    node.go_on("lives")
    node.check(
        "a latch after all that reaches a person",
        lambda: node.sent("EsperHeadNonFiniteLatched", run_id="lives", head="op"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.agent_outages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--interval", default="2s", help="of scrapes and evaluations (default 2s)")
    options = parser.parse_args()
    begun = time.monotonic()
    with scene(options.interval) as node:
        play(node)
        wrong = node.wrong
    print(f"{wrong} wrong, {time.monotonic() - begun:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
