"""Slurm's prolog and epilog start and end one agent a user, whatever jobs of the user overlap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.command import environment
from support.installed import ROOT
from support.programs import wait_until

PATIENT = 120.0


class Node:
    """A node's share, and the two scripts as a job of one user calls them."""

    def __init__(self, folder: Path) -> None:
        self.share = folder / "share"
        self.targets = folder / "targets"
        self.targets.mkdir()
        command = folder / "esper-exporter"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m esper_exporter "$@"\n')
        command.chmod(0o755)
        (folder / "defaults").write_text(
            f"ESPER_EXPORTER_FILE_SD={self.targets}\nESPER_EXPORTER_COMMAND={command}\n"
        )
        self.variables = environment(
            ESPER_EXPORTER_DEFAULTS=str(folder / "defaults"),
            ESPER_EXPORTER_SHARE=str(self.share),
        )

    def call(self, script: str, job: int, *arguments: str) -> str:
        done = subprocess.run(
            [ROOT / "deploy" / "slurm" / script, *arguments],
            env=self.variables | {"SLURM_JOB_ID": str(job)},
            capture_output=True,
            text=True,
            timeout=PATIENT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def agents(self) -> list[int]:
        """The processes that have the agents' lock open."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(
                    os.readlink(each) == str(self.share / "agent.lock")
                    for each in (process / "fd").iterdir()
                ):
                    found.append(int(process.name))
        return found

    def wait_for_target(self) -> None:
        wait_until(lambda: list(self.targets.glob("esper-*.json")), "a target file", PATIENT)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for pid in node.agents():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_agent_lives_from_the_first_prolog_to_the_last_epilog(node: Node) -> None:
    assert node.call("prolog.sh", 7) == f"export ESPER_EXPORTER_SHARE={node.share}\n"
    node.wait_for_target()
    (first,) = node.agents()
    node.call("prolog.sh", 8)
    node.call("epilog.sh", 7)
    assert first in node.agents()
    node.call("epilog.sh", 8, "--wait")
    wait_until(lambda: node.agents() == [], "no agent is left", PATIENT)
    assert list(node.targets.iterdir()) == []


def test_an_epilog_without_an_agent_does_nothing(node: Node) -> None:
    assert node.call("epilog.sh", 7, "--wait") == ""
