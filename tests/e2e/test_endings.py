"""However a training ends, a Prometheus that scrapes every second knows which head latched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.command import environment
from support.endings_matrix import WAYS, matrix
from support.ports import free_port
from support.programs import end, program, wait_until
from support.prometheus import prometheus

TESTS = Path(__file__).parents[1]
TIMES = 10
GIVEN_UP = ('broken pipe"', 'connection reset by peer"')
CODES = {"raise": 1, "exit": 3, "wait": -signal.SIGTERM, "kill": -signal.SIGKILL}
"""The ways to end, with the exit code of each: an exception, sys.exit, SIGTERM, and SIGKILL as the
kernel sends it when memory runs out."""


class Trainers:
    """Ten processes for each way to end, waiting for the command to latch."""

    def __init__(self, folder: Path) -> None:
        self.processes = {
            (how, number): subprocess.Popen(
                [sys.executable, str(TESTS / "support" / "trainer.py"), how, f"{how}-{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(
                    PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
                    TRAINER_GO="1",
                    ESPER_EXPORTER_LINGER="45",
                    ESPER_EXPORTER_TERM_LINGER="45",
                    ESPER_EXPORTER_STATE_DIR=str(folder / "state"),
                    ESPER_EXPORTER_TEXTFILE_DIR=str(folder / "textfile") if how == "kill" else "",
                ),
            )
            for how in CODES
            for number in range(TIMES)
        }
        self.addresses = [
            process.stdout.readline().strip().removeprefix("http://")
            for process in self.processes.values()
            if process.stdout is not None
        ]

    def go(self) -> None:
        """Let all of them latch and end."""
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for (how, _), process in self.processes.items():
            if how == "wait":
                assert process.stdout is not None
                assert process.stdout.readline() == "waiting\n"
                process.terminate()


@contextmanager
def trainers(folder: Path) -> Iterator[Trainers]:
    made = Trainers(folder)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.communicate()


@contextmanager
def node_exporter(textfiles: Path, log: Path) -> Iterator[str]:
    """A real node_exporter that shows these files; its address."""
    textfiles.mkdir()
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program("prometheus-node-exporter"),
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={textfiles}",
            f"--web.listen-address={address}",
        ],
        stderr=log.open("wb"),
    )
    try:
        yield address
    finally:
        end(process)


def test_ten_of_ten_latches_are_seen_however_it_ends(tmp_path: Path) -> None:
    with (
        node_exporter(tmp_path / "textfile", tmp_path / "node.log") as node,
        trainers(tmp_path) as trained,
        prometheus(tmp_path, [*trained.addresses, node], interval="1s") as server,
    ):
        count = len(trained.addresses) + 1
        server.wait_for("sum(up)", count, 60.0)
        trained.go()
        codes = {key: process.wait(60) for key, process in trained.processes.items()}
        assert {(how, code) for (how, _), code in codes.items()} == set(CODES.items())
        expected = dict.fromkeys(CODES, TIMES)
        latched = 'max_over_time(esper_tamiyo_head_nonfinite_latched{head="op",kind="nan"}[10m])'

        def seen() -> dict[str, int]:
            found = server.query(f"max by (run_id) ({latched}) == 1")
            return dict(Counter(dict(labels)["run_id"].split("-")[0] for labels in found))

        wait_until(lambda: seen() == expected, f"{expected}", 20.0)
        for how, reason in (("raise", "nonfinite"), ("wait", "signal")):
            failed = f'esper_run_failed{{run_id=~"{how}-.*",reason="{reason}"}}[10m]'
            assert server.value(f"count(max_over_time({failed}) == 1)") == TIMES, how
        finished = 'esper_run_finished{run_id=~"exit-.*"}[10m]'
        assert server.value(f"count(max_over_time({finished}) == 1)") == TIMES
        assert server.value("max_over_time(node_textfile_scrape_error[10m])") == 0
        reported = (tmp_path / "node.log").read_text().splitlines()
        errors = [line for line in reported if "level=error" in line]
        # A scrape that Prometheus gave up, on a machine that is busy, is none of the page's.
        assert [line for line in errors if not line.endswith(GIVEN_UP)] == []
        tracebacks = [
            process.stderr.read()
            for (how, _), process in trained.processes.items()
            if how == "raise" and process.stderr is not None
        ]
        assert all("RuntimeError: the loss is not finite" in text for text in tracebacks)


def test_each_of_two_scrapers_sees_each_of_eight_endings(tmp_path: Path) -> None:
    """A server that comes every second does not stand in for one that comes every five."""
    seen, codes = matrix(tmp_path, ("1s", "5s"), times=1, term_linger=45.0)
    assert [one for one in seen if (one.ends, one.latches) != (1, 1)] == []
    assert len(seen) == 2 * len(WAYS)
    assert codes == {way.how: [way.code] for way in WAYS}
