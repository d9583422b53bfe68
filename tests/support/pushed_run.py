"""A training that pushes, under ``esper-exporter run``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.command import COMMAND, environment
from support.programs import end

TESTS = Path(__file__).parents[1]
TRAINER = str(TESTS / "support" / "trainer.py")


@contextmanager
def wrapped(
    folder: Path, url: str, *command: str, interval: str = "3600", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A training under the wrapper, whose share is in ``folder``; it has lit its latch."""
    running = subprocess.Popen(
        [*COMMAND, "run", "--push", url, "--agent", str(folder / "share"), "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(
            PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
            ESPER_EXPORTER_PORT="0",
            ESPER_EXPORTER_STATE_DIR=str(folder / "state"),
            ESPER_EXPORTER_PUSH_INTERVAL=interval,
            ESPER_EXPORTER_PUSH_LINGER="60",
            **variables,
        ),
    )
    try:
        assert running.stdout is not None
        while running.stdout.readline() != "waiting\n":
            assert running.poll() is None
        yield running
    finally:
        end(running)


def trainer(pid: int) -> int:
    """The process below a wrapper, or below its shell, that has no process below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return trainer(int(below[0])) if below else pid
