"""How an agent starts and stops beside others: in turn, and at the end after the scrapers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.command import COMMAND, environment
from support.pages import value
from support.ports import free_port
from support.programs import end, wait_until

TRAINER = Path(__file__).with_name("trainer.py")
PATIENT = 120.0
"""Seconds to wait for what happens within one on a quiet machine."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Start]:
    """Start agents of one share; their log is ``tmp_path / "log"``."""
    started = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [*COMMAND, "agent", str(tmp_path / "share"), "--no-vitals", *options],
                    stderr=log,
                    env=environment(),
                )
            )
        return started[-1]

    yield start
    for agent in started:
        end(agent)


def url_of(log: Path, number: int = 1) -> str:
    """The address of the agent that began as number so many."""
    pattern = re.compile(r"agent: (http://\S+)/metrics serves")
    wait_until(lambda: len(pattern.findall(log.read_text())) >= number, "an agent serves", PATIENT)
    return pattern.findall(log.read_text())[number - 1]


def scrape(url: str) -> str:
    """The page, fetched as a Prometheus does."""
    headers = {
        "User-Agent": "Prometheus/2.53",
        "X-Prometheus-Scrape-Timeout-Seconds": "10",
    }
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def train(share: Path, *steps: str) -> subprocess.Popen[str]:
    """A trainer of run night-7."""
    return subprocess.Popen(
        [sys.executable, str(TRAINER), str(share), "night-7", "0", *steps],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_a_stopped_agent_stays_until_the_last_latch_was_fetched(
    agents: Start, tmp_path: Path
) -> None:
    agent = agents("--port", "0", "--linger", "300")
    url = url_of(tmp_path / "log")
    trainer = train(tmp_path / "share", "ready", "wait", "nan", "op", "sigkill")
    assert trainer.stdout is not None and trainer.stdin is not None
    trainer.stdout.readline()
    for _ in range(4):
        assert value(scrape(url), "esper_run_failed", reason="died") in (None, 0.0)
        time.sleep(0.1)
    trainer.communicate("\n", timeout=PATIENT)
    agent.send_signal(signal.SIGTERM)
    log = tmp_path / "log"
    wait_until(lambda: "staying up to 300 s" in log.read_text(), "the agent waits", PATIENT)
    assert agent.poll() is None
    page = scrape(url)
    assert value(page, "esper_run_failed", reason="died") == 1.0
    assert value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
    assert agent.wait(timeout=PATIENT) == 0


def test_a_second_signal_ends_the_wait(agents: Start, tmp_path: Path) -> None:
    agent = agents("--port", "0", "--linger", "300")
    url_of(tmp_path / "log")
    train(tmp_path / "share", "nan", "op", "ready", "sigkill").communicate(timeout=PATIENT)
    agent.send_signal(signal.SIGTERM)
    log = tmp_path / "log"
    wait_until(lambda: "staying up to 300 s" in log.read_text(), "the agent waits", PATIENT)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=PATIENT) == 0


def test_nothing_new_to_fetch_ends_at_once(agents: Start, tmp_path: Path) -> None:
    agent = agents("--port", "0", "--linger", "300")
    url_of(tmp_path / "log")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=PATIENT) == 0
    assert "staying" not in (tmp_path / "log").read_text()


def test_a_second_agent_waits_for_the_first_then_serves(agents: Start, tmp_path: Path) -> None:
    port = str(free_port())
    first = agents("--port", port)
    url_of(tmp_path / "log")
    refused = agents("--port", port)
    assert refused.wait(timeout=PATIENT) == 1
    second = agents("--port", port, "--wait")
    lock = tmp_path / "share" / "agent.lock"
    held = Path(f"/proc/{second.pid}/fd")
    wait_until(lambda: any(each.resolve() == lock for each in held.iterdir()), "it waits", PATIENT)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=PATIENT) == 0
    assert "esper_agent_processes" in scrape(url_of(tmp_path / "log", 2))


def test_an_agent_that_waits_ends_by_a_signal(agents: Start, tmp_path: Path) -> None:
    agents("--port", "0")
    url_of(tmp_path / "log")
    second = agents("--port", "0", "--wait")
    lock = tmp_path / "share" / "agent.lock"
    held = Path(f"/proc/{second.pid}/fd")
    wait_until(lambda: any(each.resolve() == lock for each in held.iterdir()), "it waits", PATIENT)
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=PATIENT) == 0


def test_an_agent_takes_the_share_over_from_a_wrapper(agents: Start, tmp_path: Path) -> None:
    share, port = tmp_path / "share", str(free_port())
    steps = ("update", "1", "ready", "wait", "nan", "op", "sigkill")
    wrapper = subprocess.Popen(
        [
            *(*COMMAND, "run", "--port", port, "--agent", str(share), "--"),
            *(sys.executable, str(TRAINER), str(share), "night-7", "0", *steps),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    try:
        assert wrapper.stdout is not None
        wrapper.stdout.readline()
        lock = share / "agent.lock"
        wait_until(
            lambda: lock.exists() and port in lock.read_text(), "the wrapper serves", PATIENT
        )
        agents("--port", port)
        url = url_of(tmp_path / "log")
        assert value(scrape(url), "esper_tamiyo_updates_total", run_id="night-7") == 1.0
        wrapper.communicate("\n", timeout=PATIENT)
    finally:
        wrapper.kill()
        wrapper.wait()
    assert wrapper.returncode == -signal.SIGKILL

    def reported() -> bool:
        page = scrape(url)
        return (
            value(page, "esper_run_failed", reason="killed") == 1.0
            and value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
        )

    wait_until(reported, "the agent reports the wrapper's reason", PATIENT, every=0.2)
    beside = {each.name for each in share.iterdir() if not each.name[0].isdigit()}
    assert beside == {"agent.lock", "agent.claim"}
