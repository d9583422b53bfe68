"""The browser page of a node has the runs of every process, from what each answers itself."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.test_node_agent import Node
from esper_exporter.serve.page.site import schema
from support.programs import wait_until


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose share has a path that is short enough for a socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        made = Node(Path(folder) / "share")
        made.share.mkdir(mode=0o700)
        made.look().start()
        yield made
        made.look().close()
        for trainer in made.trainers:
            trainer.kill()
            trainer.communicate()


def _get(node: Node, path: str) -> Any:
    with urllib.request.urlopen(f"{node.look().server.url}{path}", timeout=30) as answer:
        return json.loads(answer.read())


def test_runs_and_ranks_of_all_processes_are_in_one_list(node: Node) -> None:
    for rank in range(2):
        node.train("night-7", "update", "3", "ready", "wait", "end", rank=rank)
    node.train("other", "nan", "op", "ready", "wait", "end")
    state = _get(node, "/api/v1/state")
    jsonschema.validate(state, json.loads(schema("state")))
    found = {(run["run_id"], run["rank"]): run for run in state["runs"]}
    assert set(found) == {("night-7", 0), ("night-7", 1), ("other", 0)}
    assert found["other", 0]["latched"] > 0
    assert state["run"]["key"] == found["other", 0]["key"], "the one in trouble is shown first"
    key = found["night-7", 1]["key"]
    assert _get(node, f"/api/v1/state?run={urllib.request.quote(key)}")["run"]["key"] == key
    history = _get(node, f"/api/v1/history?run={urllib.request.quote(key)}")
    jsonschema.validate(history, json.loads(schema("history")))
    assert history["key"] == key and len(history["updates"]["rows"]) == 1


def test_a_process_that_died_is_shown_as_it_was_with_its_end(node: Node) -> None:
    trainer = node.train("night-7", "update", "3", "ready", "wait", "sigkill")
    assert _get(node, "/api/v1/state")["runs"][0]["state"] == "running"
    assert trainer.stdin is not None
    trainer.stdin.write("go\n")
    trainer.stdin.flush()
    trainer.wait(timeout=60)
    state: dict[str, Any] = {}

    def ended() -> bool:  # viewers share an answer for a quarter of a second
        state.update(_get(node, "/api/v1/state"))
        return state["runs"][0]["state"] != "running"

    wait_until(ended, "the page shows the end")
    (run,) = state["runs"]
    assert (run["state"], run["failure"]) == ("failed", "died")
    assert run["key"] == state["run"]["key"]
    jsonschema.validate(state, json.loads(schema("state")))


def test_a_process_that_died_unseen_is_shown_with_its_latch(node: Node) -> None:
    node.train("night-7", "nan", "op", "sigkill").wait(timeout=60)
    state = _get(node, "/api/v1/state")
    (run,) = state["runs"]
    assert (run["state"], run["failure"], run["latched"] > 0) == ("failed", "died", True)
    jsonschema.validate(state, json.loads(schema("state")))


def test_a_process_that_died_keeps_its_history(node: Node) -> None:
    node.train("night-7", "update", "3", "nan", "op", "sigkill").wait(timeout=60)
    key = _get(node, "/api/v1/state")["run"]["key"]
    history = _get(node, f"/api/v1/history?run={key}")
    jsonschema.validate(history, json.loads(schema("history")))
    assert (len(history["updates"]["rows"]) > 0, history["reset"]) == (True, True)
    again = _get(node, f"/api/v1/history?run={key}&since={history['cursor']}")
    assert (again["updates"]["rows"], again["reset"]) == ([], False)


def test_a_process_that_is_silent_is_shown_as_stalled(node: Node) -> None:
    trainer = node.train("night-7", "update", "3", "ready", "wait", "end")
    assert _get(node, "/api/v1/state")["runs"][0]["state"] == "running"
    os.kill(trainer.pid, signal.SIGSTOP)
    try:
        node.late = 11.0

        # A stop signal takes until each thread has been scheduled: one of them may still answer.
        def shown() -> Any:
            return _get(node, "/api/v1/state")["runs"][0]

        wait_until(lambda: shown()["state"] == "stalled", "the silent process is stalled")
        assert shown()["silence"] > 10.0
    finally:
        os.kill(trainer.pid, signal.SIGCONT)


def test_processes_without_news_build_no_answer_again(node: Node) -> None:
    node.train("night-7", "update", "3", "ready", "wait", "end")
    state = _get(node, "/api/v1/state")
    heard = {place: each.tag for place, each in node.look()._page._heard.items()}
    node.late = 1.0
    later = _get(node, "/api/v1/state")
    assert later["run"] == state["run"]
    assert {place: each.tag for place, each in node.look()._page._heard.items()} == heard


def test_an_empty_node_has_an_empty_list(node: Node) -> None:
    state = _get(node, "/api/v1/state")
    assert (state["runs"], state["run"]) == ([], None)
    jsonschema.validate(state, json.loads(schema("state")))
    with pytest.raises(urllib.error.HTTPError) as refused:
        _get(node, "/api/v1/history?run=nobody")
    assert refused.value.code == 503


def test_the_page_itself_and_the_plain_list_are_served(node: Node) -> None:
    for path, text in (("/", "<html"), ("/processes", "No process shares its page yet")):
        with urllib.request.urlopen(f"{node.look().server.url}{path}", timeout=30) as answer:
            assert text in answer.read().decode()


def test_a_trainer_that_shares_has_no_address_for_others(tmp_path: Path) -> None:
    from esper_exporter import Exporter

    with Exporter(port="off", share=tmp_path / "s", state_dir="off") as exporter:  # type: ignore[arg-type]
        assert exporter.url is None and exporter.port is None and not exporter.serving()
