"""`esper-exporter doctor`: what it finds on this machine and at a real Prometheus, and remedies."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.doctor import machine_checks, prometheus_checks
from esper_exporter.doctor.alertmanager_checks import (
    check_alertmanagers,
    receivers_without_address,
)
from esper_exporter.doctor.check_result import GOOD, PROBLEM, Finding
from esper_exporter.settings import Settings
from support.alertmanager import alertmanager
from support.command import run
from support.installed import ROOT
from support.ports import free_port
from support.programs import wait_until
from support.prometheus import prometheus

RULES = ROOT / "alerts" / "rules" / "*.yml"


def examined(*arguments: object, **variables: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code and findings by subject."""
    done = run("doctor", "--json", "--port", 0, *arguments, **variables)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(done.stdout):
        found.setdefault(one["subject"], []).append(one)
    return done.returncode, found


def levels(found: dict[str, list[dict[str, Any]]]) -> dict[str, set[str]]:
    return {subject: {one["level"] for one in ones} for subject, ones in found.items()}


def test_a_watched_run_has_no_problem(tmp_path: Path) -> None:
    with Exporter(port=0) as exporter:
        target = f"127.0.0.1:{exporter.port}"
        with prometheus(tmp_path / "server", [target], rule_files=[RULES]) as server:
            wait_until(
                lambda: [one["health"] for one in server.targets()] == ["up"], "the target is up"
            )
            code, found = examined("--prometheus", server.url, "--target", target)
    assert code == 0, found
    assert {"Python", "torch", "GPU driver", "state directory"} <= set(found)
    for subject in ("Prometheus", "clock", "scraping", "rules"):
        assert levels(found)[subject] == {"good"}, found[subject]
    assert f"http://{target}/metrics" in found["scraping"][0]["sentence"]
    assert levels(found)["Alertmanager"] == {"note"}
    assert "notify no one" in found["Alertmanager"][0]["sentence"]


def test_a_prometheus_that_scrapes_nothing_is_reported_subject_by_subject(tmp_path: Path) -> None:
    down = f"127.0.0.1:{free_port()}"
    slow = {"scrape_interval": "30s"}
    with prometheus(tmp_path / "server", [down], scrape=slow) as server:
        wait_until(
            lambda: [one["health"] for one in server.targets()] == ["down"],
            "the target is down",
            seconds=60,
        )
        code, found = examined("--prometheus", server.url)
        assert code == 1
        assert "nothing would fire" in found["rules"][0]["sentence"]
        said = " ".join(one["sentence"] for one in found["scraping"])
        assert f"{down} is down: " in said
        assert "every 30s: a run that dies may be gone" in said
        _, found = examined("--prometheus", server.url, "--target", "node7:9108")
        assert found["scraping"][0]["sentence"] == "Prometheus has no target node7:9108"
    problems = [one for ones in found.values() for one in ones if one["level"] == PROBLEM]
    assert all(one["remedy"] for one in problems)


def test_no_prometheus_is_a_problem_with_a_remedy_unless_off() -> None:
    code, found = examined("--prometheus", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "does not answer (Connection refused)" in found["Prometheus"][0]["sentence"]
    assert "esper-exporter stack" in found["Prometheus"][0]["remedy"]
    code, found = examined("--prometheus", "off")
    assert code == 0
    assert "Prometheus" not in found
    assert run("doctor", "--prometheus", "node7").returncode == 2


def test_it_prints_a_sentence_and_a_remedy_each() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("doctor", "--prometheus", "off", "--port", taken.getsockname()[1])
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    (line,) = [one for one in lines if one.startswith("PROBLEM port: ")]
    assert f"is taken by pid {os.getpid()} " in line
    assert lines[lines.index(line) + 1].startswith("        → ")
    assert lines[-1].startswith("1 problem")
    assert lines[-2].startswith("not checked: Prometheus, rules and Alertmanager, because of ")


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("textfile_dir", lambda path: None, "does not exist"),
        ("textfile_dir", lambda path: path.touch(), "is not a directory"),
        ("state_dir", lambda path: path.touch(), "is not a directory"),
        ("file_sd", lambda path: path.touch(), "is not a directory"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_problem(
    name: str, make: Any, sentence: str, tmp_path: Path
) -> None:
    make(tmp_path / "it")
    settings = Settings(**{"state_dir": None, name: tmp_path / "it"})
    found = [one for one in machine_checks.check_folders(settings) if one.level == PROBLEM]
    assert [sentence in one.sentence for one in found] == [True], found


def test_a_folder_that_can_be_made_is_none(tmp_path: Path) -> None:
    (one,) = machine_checks.check_folders(Settings(state_dir=tmp_path / "new" / "state"))
    assert "created at the first start" in one.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_differs_and_an_old_server_are_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "status_buildinfo": {"version": "2.30.1"},
        "query": {"result": [0, "1000.0"]},
        "targets": {"activeTargets": []},
        "rules": {"groups": []},
        "alertmanagers": {"activeAlertmanagers": []},
    }

    def ask(address: str, path: str, **parameters: str) -> object:
        if parameters.get("query", "time()") != "time()":
            return {"result": []}
        return answers[path.replace("/", "_")]

    monkeypatch.setattr(prometheus_checks, "_ask", ask)
    found: dict[str, Finding] = {
        one.subject: one for one in prometheus_checks.check_prometheus("http://x", None)
    }
    assert "version 2.30.1, on which the rules are untested" in found["Prometheus"].sentence
    assert "s behind this machine's" in found["clock"].sentence
    assert "time service" in found["clock"].remedy
    assert found["scraping"].sentence == "Prometheus scrapes no esper target"


def test_receivers_without_an_address_are_named(tmp_path: Path) -> None:
    with alertmanager(tmp_path) as server:
        known = {"activeAlertmanagers": [{"url": f"http://{server.address}/api/v2/alerts"}]}
        (one,) = check_alertmanagers(known)
        assert one.level == GOOD, one
        assert server.address in one.sentence
    (one,) = check_alertmanagers(known)
    assert one.level == PROBLEM
    shipped = (ROOT / "alerts" / "alertmanager.yml").read_text()
    empty = ["team", "on-call", "on-call-latched", "dead-mans-switch"]
    assert receivers_without_address(shipped.replace("\n  - name:", "\n- name:")) == empty
    example = (ROOT / "alerts" / "receivers.example.yml").read_text()
    indented = "".join(line.removeprefix("  ") for line in example.splitlines(keepends=True))
    assert receivers_without_address(f"\n{indented}") == []
