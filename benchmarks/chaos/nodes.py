"""The simulated nodes: each with an agent, its trainings, and disks that can be filled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.disks import Disk
from benchmarks.death_alerts import answers

# benchmarks.death_alerts puts the tests on the path.
from support.command import environment
from support.ports import free_port
from support.programs import end, wait_until

TRAINER = Path(__file__).with_name("trainer.py")
SECONDS_BETWEEN_UPDATES = 5.0
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
"""Debian's libfaketime: the clock that a node's processes read."""


class Clock:
    """The clock of a node, which can be set while its processes run (libfaketime)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.skew = 0.0
        self.set(0.0)

    def set(self, seconds: float) -> None:
        """Let the node's clock be that much ahead, or behind if negative."""
        self.skew = seconds
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{seconds:+.0f}s\n")
        beside.replace(self._file)

    def variables(self) -> dict[str, str]:
        """What makes a process read this clock."""
        return {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@dataclass
class Training:
    """A run: its process, and the wrapper if it has one."""

    run_id: str
    wrapped: bool
    vitals: bool
    lives: int = 0
    process: subprocess.Popen[str] | None = None
    pid: int = 0
    """Of the training itself, not of its wrapper."""
    count_file: Path = Path()
    ended: dict[str, float] = field(default_factory=dict)
    """When each process was seen to be gone, in seconds since the epoch, by its number."""

    @property
    def updates(self) -> int:
        """The number of updates that the present process has emitted."""
        return self.count_file.stat().st_size


@dataclass
class Node:
    """One machine: an agent, a share, a disk, a clock and trainings."""

    name: str
    folder: Path
    share: Disk
    disk: Disk
    clock: Clock | None
    wrapped: bool
    """Whether trainings run under ``esper-exporter run``."""
    port: int = field(default_factory=free_port)
    agent: subprocess.Popen[bytes] | None = None
    trainings: dict[str, Training] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """What Prometheus scrapes, and calls the instance."""
        return f"127.0.0.1:{self.port}"

    @property
    def pages(self) -> Path:
        """The share, as the agent and the trainings know it."""
        return self.share.path / "share"

    def _variables(self, vitals: bool = False) -> dict[str, str]:
        clock = {} if self.clock is None else self.clock.variables()
        found = environment(**clock)
        if vitals:
            del found["ESPER_EXPORTER_HOST_VITALS"]
        return found

    def start_agent(self) -> None:
        """Start the agent, and wait until it answers."""
        self.pages.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "esper_exporter", "agent", str(self.pages)),
                    *("--port", str(self.port), "--no-vitals"),
                ],
                stderr=log,
                env=self._variables(),
            )
        wait_until(lambda: answers(self.port), "the agent answers", seconds=120)

    def kill_agent(self) -> None:
        """End the agent by SIGKILL."""
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def train(self, run_id: str, vitals: bool = False) -> None:
        """Start a training, or start it again, and wait until it has published."""
        training = self.trainings.setdefault(run_id, Training(run_id, self.wrapped, vitals))
        training.lives += 1
        training.count_file = self.folder / f"{run_id}.{training.lives}.count"
        training.count_file.touch()
        state = self.disk.path / run_id
        state.mkdir(mode=0o700, exist_ok=True)
        command: Sequence[str] = [
            *(sys.executable, str(TRAINER), str(self.pages), run_id),
            *(str(training.count_file), str(state), str(SECONDS_BETWEEN_UPDATES)),
        ]
        if self.wrapped:
            wrapper = [sys.executable, "-m", "esper_exporter", "run"]
            command = [
                *(*wrapper, "--agent", str(self.pages), "--port", "0"),
                *("--run-id", run_id, "--", *command),
            ]
        with (self.folder / f"{run_id}.log").open("a") as log:
            training.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._variables(training.vitals),
            )
        assert training.process.stdout is not None
        training.pid = int(training.process.stdout.readline())

    def order(self, run_id: str, command: str) -> None:
        """Let a training do something."""
        process = self.trainings[run_id].process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()

    def kill(self, run_id: str) -> None:
        """End a training by SIGKILL; its wrapper, if any, sees it."""
        os.kill(self.trainings[run_id].pid, signal.SIGKILL)

    def reap(self, run_id: str) -> None:
        """Wait for the end of a training, and of its wrapper."""
        process = self.trainings[run_id].process
        assert process is not None
        process.communicate(timeout=120)
        self.trainings[run_id].ended[str(self.trainings[run_id].pid)] = time.time()

    def close(self) -> None:
        """End all processes, and give the disks back."""
        for training in self.trainings.values():
            if training.process is not None and training.process.poll() is None:
                os.kill(training.pid, signal.SIGKILL)
                training.process.communicate(timeout=120)
        if self.agent is not None:
            end(self.agent)
        self.share.close()
        self.disk.close()
