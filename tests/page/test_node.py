"""Several ranks, processes and GPUs in a real browser: what the page of a node agent shows."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from agent.test_node_agent import Node
from esper_exporter import Exporter
from esper_exporter.probes.gpu.fake import FakeDriver, Fault
from page.browser import Tab
from support.states import started, update


class _Address:
    """What a tab needs of the server that it looks at."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose share has a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        made = Node(Path(folder) / "share")
        made.share.mkdir(mode=0o700)
        made.look().start()
        yield made
        made.look().close()
        for trainer in made.trainers:
            trainer.kill()
            trainer.communicate()


@pytest.fixture
def tab(node: Node, chromium: webdriver.Chrome) -> Iterator[Tab]:
    """A tab on the agent's page."""
    url = node.look().server.url
    assert url is not None
    opened = Tab(chromium, _Address(url))
    opened.look(width=1600)
    yield opened
    opened.leave()


def test_all_ranks_of_a_node_stand_side_by_side_until_their_end(node: Node, tab: Tab) -> None:
    for rank in range(3):
        steps = ("nan", "op") if rank == 1 else ("update", "3")
        node.train("night-7", "update", "2", *steps, "ready", "wait", "sigkill", rank=rank)
    node.train("other", "update", "3", "ready", "wait", "end")
    tab.go("#/runs")
    tab.until("return document.querySelectorAll('.ranks tbody tr').length === 4")
    rows = tab.texts(".ranks tbody tr")
    assert [row.split()[1] for row in rows if "default" in row] == ["0", "1", "2", "0"]
    assert tab.texts(".ranks tr.bad th") == [
        row for row in tab.texts(".ranks th[scope=row]") if "1" in row
    ]
    assert "op latched" in tab.text(".ranks tr.bad")
    assert "Op made NaN" in tab.text(".runs h2")

    # A rank is chosen by a click, the next by its key, each with its own latches and lines.
    tab.run("document.querySelector('.ranks tr.bad').click()")
    tab.until("return document.getElementById('pick-rank')?.value === '1'")
    tab.until(
        "return document.querySelector('.latches .set') && document.querySelector('.tag.fault')"
    )
    tab.press("]")
    tab.until("return document.getElementById('pick-rank')?.value === '2'")
    tab.until("return document.querySelector('.latches .sum').innerText.includes('none set')")

    # One rank is killed: it has failed, and its lines stay.
    tab.press("[")
    tab.until("return document.getElementById('pick-rank')?.value === '1'")
    doomed = node.trainers[1]
    doomed.kill()
    doomed.wait(timeout=60)
    tab.until("return document.querySelector('.strip')?.innerText.includes('This run failed')")
    assert "died" in tab.text(".live")
    assert tab.run("return document.documentElement.classList.contains('gone')")
    assert tab.run("return document.querySelectorAll('.tag.fault').length") == 1
    tab.go("#/runs")
    tab.until("return document.querySelector('.ranks tr.bad')?.innerText.includes('failed')")
    assert tab.complaints() == []
    assert tab.foreign() == []


@pytest.mark.slow
def test_a_rank_that_does_not_answer_is_not_shown_as_running(node: Node, tab: Tab) -> None:
    for rank in range(2):
        node.train("night-7", "update", "3", "ready", "wait", "end", rank=rank)
    tab.go("#/runs")
    tab.until("return document.querySelectorAll('.ranks tbody tr').length === 2")
    stopped = node.trainers[1]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        node.late = 11.0
        tab.until("return document.querySelectorAll('.ranks tr.wrn').length === 1")
        assert "stalled" in tab.text(".ranks tr.wrn")
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    tab.until("return document.querySelectorAll('.ranks tr.wrn').length === 0")


def test_a_dead_process_opens_with_its_lines_and_latches(node: Node, tab: Tab) -> None:
    node.train("night-7", "update", "2", "nan", "op", "sigkill").wait(timeout=60)
    tab.go()
    tab.until("return document.querySelector('.strip')?.innerText.includes('This run failed')")
    tab.until("return document.querySelector('.tag.fault')")
    assert tab.text(".word b") == "Failed"
    assert "Op" in tab.text(".latches .on")
    assert tab.complaints() == []


@pytest.mark.slow
def test_an_agent_that_is_gone_is_not_shown_as_live(node: Node, tab: Tab) -> None:
    node.train("night-7", "update", "3", "ready", "wait", "end")
    tab.go()
    node.look().server.close()
    tab.until("return document.querySelector('.strip')?.innerText.includes('No contact since')")
    assert tab.run("return document.documentElement.classList.contains('gone')")
    tab.complaints()  # refused connections are what this is about


def test_of_several_gpus_the_overview_shows_the_sick_one(chromium: webdriver.Chrome) -> None:
    driver = FakeDriver(4, faults=[Fault("lost", gpu=2)])
    exporter = Exporter(
        port=0,
        state_dir="off",
        share="off",
        watch_process=False,
        linger=0.0,
        host_vitals="off",
        gpu_vitals="on",
        gpu_driver=driver,
        vitals_interval=1.0,
    )
    exporter.emit(started())
    exporter.emit(update(1.0))
    with exporter:
        tab = Tab(chromium, exporter)
        tab.look()
        tab.go()
        tab.until("return document.querySelector('.sys').innerText.includes('GPU 2')")
        assert "of 4" in tab.text(".sys")
        assert "lost" in tab.text(".sys")
        assert tab.text(".word b") == "Look"
        assert "GPU 2 does not answer" in tab.text(".reason")
        tab.go("#/system")
        for gpu in range(4):
            assert f"GPU {gpu}" in " ".join(tab.texts(".cards h2"))
        assert tab.complaints() == []
        tab.leave()
