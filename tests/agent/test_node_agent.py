"""One agent serves the pages of all processes of a node, alive or gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.serve.interfaces import Served
from esper_exporter.serve.negotiation import negotiate
from support.pages import value, values

TRAINER = Path(__file__).with_name("trainer.py")


@dataclass
class Node:
    """A share, the trainers that write to it, and an agent with a clock that tests move."""

    share: Path
    trainers: list[subprocess.Popen[str]] = field(default_factory=list)
    late: float = 0.0
    agent: NodeAgent | None = None

    def train(self, run_id: str, *steps: str, rank: int = 0) -> subprocess.Popen[str]:
        """Start a trainer and wait until it prints that it is ready or has ended."""
        trainer = subprocess.Popen(
            [sys.executable, str(TRAINER), str(self.share), run_id, str(rank), *steps],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.trainers.append(trainer)
        assert trainer.stdout is not None
        trainer.stdout.readline()
        return trainer

    def look(self) -> NodeAgent:
        """An agent that serves the share, made anew when there is none."""
        if self.agent is None:
            self.agent = NodeAgent(
                AgentSettings(shares=[self.share], port=0, gpu_vitals="off", host_vitals="off"),
                clock=lambda: time.time() + self.late,
            )
        return self.agent

    def page(self, query: str = "") -> str:
        """The agent's page in the text format."""
        agent = self.look()
        render = agent.part(query) or agent.render
        return render(negotiate(None), False).decode()

    def scrape(self) -> str:
        """The page as a server fetches it: delivered whole."""
        page = self.page()
        self.look().served(
            Served(
                address="10.0.0.1",
                user_agent="Prometheus/2.53",
                asked_at=time.monotonic(),
                seconds=0.01,
                size=10,
                format="text",
                timeout=10.0,
                complete=True,
                connection=1,
            )
        )
        return page


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """An empty node; what was started on it is killed at the end."""
    made = Node(tmp_path / "share")
    made.share.mkdir(mode=0o700)
    yield made
    for trainer in made.trainers:
        trainer.kill()
        trainer.communicate()


def _die(trainer: subprocess.Popen[str]) -> int:
    assert trainer.stdin is not None
    trainer.stdin.write("go\n")
    trainer.stdin.flush()
    return trainer.wait(timeout=60)


def test_all_ranks_and_runs_are_on_one_page(node: Node) -> None:
    for rank in range(2):
        node.train("night-7", "update", "3", "ready", "wait", "end", rank=rank)
    node.train("other", "update", "5", "ready", "wait", "end")
    page = node.page()
    assert values(page, "esper_tamiyo_updates_total") == [1.0, 1.0, 1.0]
    assert value(page, "esper_tamiyo_updates_total", run_id="night-7", rank="1") == 1.0
    assert value(page, "esper_agent_processes", state="running") == 3.0


@pytest.mark.parametrize(
    ("accept", "parse"),
    [(None, parse_text), ("application/openmetrics-text", parse_openmetrics)],
    ids=["text", "openmetrics"],
)
def test_the_merged_page_parses_strictly(
    node: Node, accept: str | None, parse: Callable[[str], object]
) -> None:
    for rank in range(2):
        node.train("night-7", "nan", "op", "ready", "wait", "end", rank=rank)
    page = node.look().render(negotiate(accept), False).decode()
    families = list(parse(page))  # type: ignore[call-overload]
    assert len({family.name for family in families}) == len(families)


def test_a_part_of_the_page_is_chosen_by_run_and_rank(node: Node) -> None:
    for rank in range(2):
        node.train("night-7", "update", "3", "ready", "wait", "end", rank=rank)
    node.train("other", "update", "5", "ready", "wait", "end")
    assert len(values(node.page("run_id=night-7"), "esper_tamiyo_updates_total")) == 2
    part = node.page("run_id=night-7&rank=1")
    assert len(values(part, "esper_tamiyo_updates_total")) == 1
    assert values(part, "esper_agent_processes") == []
    assert node.page("run_id=nobody").strip() == ""


@pytest.mark.parametrize(
    "steps", [("sigkill",), ("sigsegv",), ("sigabrt",), ("exit", "3")], ids=lambda each: each[0]
)
def test_a_killed_process_stays_on_the_page_with_its_latch(
    node: Node, steps: tuple[str, ...]
) -> None:
    node.train("night-7", "nan", "op", *steps).wait(timeout=60)
    page = node.page()
    failed = {"run_id": "night-7", "reason": "died"}
    assert value(page, "esper_run_failed", **failed) == 1.0
    assert value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
    assert value(page, "esper_run_finished") == 0.0
    assert value(page, "esper_run_active") == 0.0
    assert value(page, "esper_agent_deaths_total", reason="died") == 1.0
    assert values(page, "esper_run_exit_code") == []


def test_the_reason_that_a_process_reported_is_kept(node: Node) -> None:
    agent = node.look()
    agent.start()
    try:
        assert node.train("night-7", "update", "1", "raise").wait(timeout=60) == 1
        page = node.page()
        assert value(page, "esper_run_failed", reason="exception") == 1.0
        assert value(page, "esper_run_failed", reason="died") == 0.0
        assert value(page, "esper_agent_processes", state="failed") == 1.0
    finally:
        agent.close()


def test_a_good_end_leaves_the_page_once_every_scraper_has_fetched_it(node: Node) -> None:
    agent = node.look()
    agent.start()
    try:
        trainer = node.train("night-7", "update", "1", "ready", "wait", "end")
        node.scrape()
        assert _die(trainer) == 0
        assert value(node.page(), "esper_run_finished", run_id="night-7") == 1.0
        node.scrape()
        node.scrape()
        node.page()
        assert values(node.page(), "esper_run_finished") == []
        assert not list(node.share.glob("[0-9]*"))
    finally:
        agent.close()


def test_live_gauges_leave_the_page_after_the_end_and_the_fault_stays(node: Node) -> None:
    node.train("night-7", "nan", "op", "update", "7", "ready", "sigkill").wait(timeout=60)
    page = node.page()
    assert value(page, "esper_tamiyo_policy_loss", run_id="night-7") == 0.1
    assert values(page, "esper_exporter_series", run_id="night-7") == [], (
        "of a process that is gone"
    )
    for _ in range(2):
        node.scrape()
    node.page()
    page = node.page()
    assert values(page, "esper_tamiyo_policy_loss") == []
    assert value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
    assert value(page, "esper_run_failed", reason="died") == 1.0
    assert value(page, "esper_tamiyo_updates_total") == 2.0


def test_a_dead_page_is_retired_after_its_time(node: Node) -> None:
    node.train("night-7", "update", "1", "ready", "sigkill").wait(timeout=60)
    assert value(node.page(), "esper_run_failed", reason="died") == 1.0
    node.late = 901.0
    node.page()
    assert values(node.page(), "esper_run_failed") == []
    assert not list(node.share.glob("[0-9]*"))


def test_a_new_agent_keeps_the_ended_processes_of_the_one_before(node: Node) -> None:
    node.train("night-7", "nan", "op", "sigkill").wait(timeout=60)
    first = value(node.page(), "esper_run_end_timestamp_seconds")
    node.agent = None
    page = node.page()
    assert value(page, "esper_run_failed", reason="died") == 1.0
    assert value(page, "esper_run_end_timestamp_seconds") == first
    assert value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0


def test_a_run_that_was_started_again_is_on_the_page_once(node: Node) -> None:
    node.train("night-7", "update", "1", "ready", "sigkill").wait(timeout=60)
    node.train("night-7", "update", "1", "update", "2", "ready", "wait", "end")
    page = node.page()
    assert value(page, "esper_tamiyo_updates_total", run_id="night-7") == 2.0
    assert value(page, "esper_run_failed", reason="died") == 0.0
    list(parse_text(page))


def test_two_living_processes_of_one_run_and_rank_cost_one_page_not_the_scrape(node: Node) -> None:
    for _ in range(2):
        node.train("night-7", "update", "1", "ready", "wait", "end")
    page = node.page()
    assert values(page, "esper_tamiyo_updates_total") == [1.0]
    page = node.page()
    assert value(page, "esper_agent_pages_refused", reason="duplicate") == 1.0


def _corrupt(directory: Path) -> None:
    (directory / "page").write_bytes(b"x" * 9000)


def _truncate(directory: Path) -> None:
    os.truncate(directory / "page", 4200)


def _grow(directory: Path) -> None:
    os.truncate(directory / "page", 1 << 40)


def _symlink(directory: Path) -> None:
    (directory / "page").rename(directory / "elsewhere")
    (directory / "page").symlink_to(directory / "elsewhere")


def _layout(directory: Path) -> None:
    (directory / "layout.1").write_bytes(b"{}\n")


def _identity(directory: Path) -> None:
    (directory / "process.json").write_bytes(b"[" * 1000)


def _foreign(directory: Path) -> None:
    if os.getuid() != 0:
        pytest.fail("this case needs root: it gives a file to another user")
    os.chown(directory / "page", 12345, 12345)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_corrupt, "corrupt"),
        (_truncate, "truncated"),
        (_grow, "too_large"),
        (_symlink, "unreadable"),
        (_layout, "truncated"),
        (_identity, "corrupt"),
        (_foreign, "owner"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_a_bad_neighbour_is_refused_and_the_others_are_served(
    node: Node, damage: Callable[[Path], None], reason: str
) -> None:
    bad = node.train("bad", "update", "1", "ready", "wait", "end")
    directory = next(node.share.glob(f"{bad.pid}-*"))
    bad.send_signal(signal.SIGSTOP)
    damage(directory)
    node.train("good", "update", "1", "ready", "wait", "end")
    page = node.page()
    assert value(page, "esper_tamiyo_updates_total", run_id="good") == 1.0
    assert values(page, "esper_tamiyo_updates_total", run_id="bad") == []
    assert value(page, "esper_agent_pages_refused", reason=reason) == 1.0


def test_markup_in_labels_stays_text(node: Node) -> None:
    node.train('a"}\n# EOF\nevil 1', "update", "1", "ready", "wait", "end")
    page = node.page()
    assert "\nevil 1" not in page
    assert values(page, "esper_tamiyo_updates_total") == [1.0]


def test_a_child_that_outlives_its_trainer_does_not_make_it_alive(node: Node) -> None:
    program = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(TRAINER.parent)!r})\n"
        "import trainer\n"
        "real = os.kill\n"
        "def forking(pid, number):\n"
        "    if os.fork() == 0:\n"
        "        print('child', os.getpid(), flush=True)\n"
        "        sys.stdin.readline()\n"
        "        os._exit(0)\n"
        "    real(pid, number)\n"
        "os.kill = forking\n"
        "trainer.main(*sys.argv[1:])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(node.share), "night-7", "0", "ready", "sigkill"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdin is not None
    assert parent.stdout.readline() == "ready\n"
    assert parent.stdout.readline().startswith("child")
    parent.wait(timeout=60)
    try:
        assert value(node.page(), "esper_run_failed", reason="died") == 1.0
    finally:
        parent.stdin.close()
        parent.stdout.close()


def test_restarts_leave_no_series_and_no_files(node: Node) -> None:
    for _ in range(5):
        node.train("night-7", "update", "1", "ready", "sigkill").wait(timeout=60)
    node.page()
    node.late = 901.0
    node.page()
    assert values(node.page(), "esper_run_active") == []
    assert [each.name for each in node.share.iterdir()] == []


def test_the_server_answers_for_a_part_of_the_page(node: Node) -> None:
    node.train("night-7", "update", "3", "ready", "wait", "end", rank=1)
    node.train("other", "update", "5", "ready", "wait", "end")
    agent = node.look()
    agent.start()
    try:
        address = f"{agent.server.url}/metrics?run_id=night-7&rank=1"
        with urllib.request.urlopen(address, timeout=30) as answer:
            page = answer.read().decode()
    finally:
        agent.close()
    assert value(page, "esper_tamiyo_updates_total", run_id="night-7") == 1.0
    assert values(page, "esper_tamiyo_updates_total", run_id="other") == []


def test_a_process_that_died_before_its_first_event_has_failed(node: Node) -> None:
    program = (
        "import os, signal, sys\n"
        "from esper_exporter import Exporter\n"
        "Exporter(run_id='early', share=sys.argv[1], port='off', state_dir='off',"
        " gpu_vitals='off', host_vitals='off').start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(node.share)], timeout=60)
    page = node.page()
    assert value(page, "esper_run_failed", run_id="early", rank="0", reason="died") == 1.0
    assert value(page, "esper_agent_processes", state="died") == 1.0
    list(parse_text(page))
