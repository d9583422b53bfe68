"""RankClock in a real data-parallel training of four processes: the slow, the stuck and the odd
rank are distinguished from the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.serve.negotiation import negotiate
from support.pages import samples
from support.programs import wait_until

pytestmark = pytest.mark.slow

RANKS = 4
PROGRAM = Path(__file__).with_name("ranks.py")
Values = dict[str, float]


class Training:
    """Four ranks and an agent that reads their pages."""

    def __init__(self, share: Path, *arguments: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            meeting = str(found.getsockname()[1])
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(share), *arguments],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": str(RANKS),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": meeting,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
            )
            for rank in range(RANKS)
        ]
        self._agent = NodeAgent(
            AgentSettings(shares=[share], gpu_vitals="off", host_vitals="off", port=0)
        )

    def by_rank(self, *names: str) -> list[Values]:
        """Each gauge's value by rank, all from one scrape."""
        found = samples(self._agent.render(negotiate(None), False).decode())
        return [
            {dict(key[1])["rank"]: v for key, v in found.items() if key[0] == name}
            for name in names
        ]

    def until(self, step: int, ranks: int) -> None:
        """Wait until so many ranks have done their part of a step."""
        wait_until(
            lambda: sum(v >= step for v in self.by_rank("esper_rank_update")[0].values()) >= ranks,
            f"{ranks} ranks have done step {step}",
            seconds=180,
            every=0.3,
        )


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir(mode=0o700)
    return tmp_path / "share"


@pytest.fixture
def started() -> Iterator[list[Training]]:
    trainings: list[Training] = []
    yield trainings
    for training in trainings:
        for process in training.processes:
            process.kill()
            process.wait()


def test_the_slow_rank_looks_slow_and_the_others_do_not(
    share: Path, started: list[Training]
) -> None:
    training = Training(share, "400", "slow", "2", "0.3")
    started.append(training)

    def looks_slow() -> bool:
        (seconds,) = training.by_rank("esper_rank_step_seconds")
        return len(seconds) == RANKS and seconds.pop("2") > 1.25 * max(seconds.values())

    # A busy machine may slow any single step of any rank.
    wait_until(looks_slow, "rank 2 looks slow beside each other", seconds=180, every=0.5)


def test_the_rank_that_the_others_wait_for_is_a_step_behind(
    share: Path, started: list[Training]
) -> None:
    training = Training(share, "400", "hang", "1", "6")
    started.append(training)
    training.until(6, RANKS - 1)
    (steps,) = training.by_rank("esper_rank_update")
    assert steps.pop("1") == 5.0
    assert set(steps.values()) == {6.0}


def test_a_rank_that_computes_otherwise_differs_at_the_same_step(
    share: Path, started: list[Training]
) -> None:
    training = Training(share, "400", "drift", "3")
    started.append(training)

    norms: Values = {}

    def compared() -> bool:
        """Whether all ranks have values of one step; ``norms`` are these then."""
        steps, found = training.by_rank(
            "esper_rank_checked_update", "esper_rank_checked_gradient_norm"
        )
        norms.update(found)
        return len(steps) == RANKS == len(found) and len(set(steps.values())) == 1

    wait_until(compared, "all ranks have values of one step", seconds=180, every=0.2)
    odd = norms.pop("3")
    assert len({round(v, 4) for v in norms.values()}) == 1
    assert abs(odd - norms["0"]) > 0.5
