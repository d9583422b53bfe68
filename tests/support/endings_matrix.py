"""Trainings that end in eight ways, each scraped by several Prometheus servers: who saw the end?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.command import environment
from support.prometheus import Prometheus, prometheus

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "support" / "trainer.py"
LATCHED = 'esper_tamiyo_head_nonfinite_latched{head="op",kind="nan"}'


@dataclass(frozen=True, slots=True)
class Way:
    """One way to end: the exit code, and the sample that reports it."""

    how: str
    code: int
    shows: str
    signal: signal.Signals | None = None


FINISHED = "esper_run_finished"
FAILED = "esper_run_failed"
WAYS = (
    Way("return", 0, FINISHED),
    Way("exit", 3, FINISHED),
    Way("raise", 1, f'{FAILED}{{reason="nonfinite"}}'),
    Way("oom", 1, f'{FAILED}{{reason="oom"}}'),
    Way("thread", 0, f'{FAILED}{{reason="nonfinite"}}'),
    Way("interrupt", -signal.SIGINT, f'{FAILED}{{reason="signal"}}'),
    Way("wait", -signal.SIGTERM, f'{FAILED}{{reason="signal"}}', signal.SIGTERM),
    Way("handled", 7, f'{FAILED}{{reason="signal"}}', signal.SIGTERM),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one server has of the runs that ended in one way: how many ends, how many latches."""

    how: str
    interval: str
    ends: int
    latches: int


class Trainings:
    """``times`` processes for each way to end, waiting for the command to latch."""

    def __init__(self, folder: Path, times: int, linger: float, term_linger: float) -> None:
        self.processes: dict[tuple[Way, int], subprocess.Popen[str]] = {}
        for number in range(times):
            for way in WAYS:
                self.processes[way, number] = subprocess.Popen(
                    [sys.executable, str(PROGRAM), way.how, f"{way.how}-{number}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=(folder / f"{way.how}-{number}.log").open("wb"),
                    text=True,
                    env=environment(
                        PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
                        TRAINER_GO="1",
                        ESPER_EXPORTER_LINGER=str(linger),
                        ESPER_EXPORTER_TERM_LINGER=str(term_linger),
                        ESPER_EXPORTER_STATE_DIR=str(folder / "state"),
                        ESPER_EXPORTER_GPU_VITALS="off",
                        ESPER_EXPORTER_HOST_VITALS="off",
                    ),
                )
        self.addresses = [
            process.stdout.readline().strip().removeprefix("http://")
            for process in self.processes.values()
            if process.stdout is not None
        ]

    def end(self) -> None:
        """Let all of them latch and end, each in its way."""
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for (way, _), process in self.processes.items():
            if way.signal is not None:
                assert process.stdout is not None
                assert process.stdout.readline() == "waiting\n"
                process.send_signal(way.signal)


@contextmanager
def trainings(folder: Path, times: int, linger: float, term_linger: float) -> Iterator[Trainings]:
    """The processes; what still runs at the end is killed."""
    made = Trainings(folder, times, linger, term_linger)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.communicate()


def matrix(
    folder: Path,
    intervals: Sequence[str],
    times: int,
    linger: float = 45.0,
    term_linger: float = 25.0,
) -> tuple[list[Seen], dict[str, list[int]]]:
    """What each server, scraping at its interval, saw of each way to end, and the exit codes."""
    with ExitStack() as stack:
        trained = stack.enter_context(trainings(folder, times, linger, term_linger))
        servers = {
            interval: stack.enter_context(
                prometheus(folder / interval, trained.addresses, interval=interval)
            )
            for interval in intervals
        }
        for server in servers.values():
            server.wait_for("sum(up)", len(trained.addresses), 120.0)
        trained.end()
        codes: dict[str, list[int]] = {}
        for (way, _), process in trained.processes.items():
            codes.setdefault(way.how, []).append(process.wait(linger + 120.0))
        # A page that has arrived is stored a moment later.
        for server in servers.values():
            server.wait_for("sum(up)", 0.0, 60.0)
        return [
            Seen(way.how, interval, _count(server, way, way.shows), _count(server, way, LATCHED))
            for interval, server in servers.items()
            for way in WAYS
        ], codes


def _count(server: Prometheus, way: Way, series: str) -> int:
    """Runs of one way that a series has been 1 of."""
    name, _, labels = series.partition("{")
    chosen = ",".join([f'run_id=~"{way.how}-.*"', *filter(None, [labels.removesuffix("}")])])
    found = server.value(f"count(max_over_time({name}{{{chosen}}}[30m]) == 1)")
    return int(found or 0)
