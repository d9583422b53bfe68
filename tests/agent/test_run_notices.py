"""`run` names its page, and reports a program without an exporter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from support.command import COMMAND, environment
from support.programs import wait_until

EXPORTS = """
import time
from esper_exporter import Exporter
with Exporter(run_id="night-7") as exporter:
    while exporter.url is None:  # on a busy machine the wrapper serves later
        time.sleep(0.1)
    print(exporter.url, flush=True)
    input()
"""
PAGE = re.compile(r"^esper-exporter: the run's page is (http://127\.0\.0\.1:\d+)/$", re.M)
NOTHING = "esper-exporter: nothing was attached, so this run has no metrics: "


def start(tmp_path: Path, code: str) -> subprocess.Popen[str]:
    """A program under `run`, whose standard error is the file ``log`` as in a batch job."""
    share = str(tmp_path / "share")
    with (tmp_path / "log").open("w") as errors:
        return subprocess.Popen(
            [*COMMAND, "run", "--port", "0", "--agent", share, "--", sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(ESPER_EXPORTER_LINGER="0", ESPER_EXPORTER_STATE_DIR="off"),
        )


def test_the_line_on_standard_error_and_the_program_name_the_same_page(tmp_path: Path) -> None:
    process = start(tmp_path, EXPORTS)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    log = tmp_path / "log"
    wait_until(lambda: PAGE.search(log.read_text()) is not None, "the page is named", seconds=60)
    process.communicate("\n", timeout=120)
    assert process.returncode == 0
    found = PAGE.search(log.read_text())
    assert found is not None and found[1] == address
    assert NOTHING not in log.read_text()


@pytest.mark.parametrize("code", ["pass", "raise SystemExit(3)"])
def test_a_program_without_an_exporter_is_reported(code: str, tmp_path: Path) -> None:
    process = start(tmp_path, code)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == (3 if "3" in code else 0)
    assert (tmp_path / "log").read_text().count(NOTHING) == 1
    assert out == ""


def test_the_address_is_that_of_the_agent_while_one_serves(tmp_path: Path) -> None:
    exporter = Exporter(share=tmp_path / "share", port="off", state_dir="off", linger=0)
    exporter.start()
    assert exporter.url is None
    agent = NodeAgent(
        AgentSettings(
            shares=[tmp_path / "share"], port=0, gpu_vitals="off", host_vitals="off", strict=True
        )
    )
    agent.start()
    try:
        assert agent.url is not None
        assert exporter.url == agent.url
    finally:
        agent.close()
    assert exporter.url is None
    exporter.close()
