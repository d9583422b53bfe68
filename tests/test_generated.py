"""Generated files are what their generators make today; if not: ``make generate``."""

from __future__ import annotations

import re
import runpy
import subprocess
from datetime import UTC, datetime

import pytest

from esper_exporter.contract.events import Event
from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import Rejected
from support.installed import ROOT


def test_the_completion_scripts_are_up_to_date() -> None:
    generated = runpy.run_path(str(ROOT / "scripts" / "completions.py"))["generated"]()
    stale = [path.name for path, text in generated.items() if path.read_text() != text]
    assert stale == []


def test_the_code_map_is_up_to_date() -> None:
    with_map = runpy.run_path(str(ROOT / "scripts" / "codemap.py"))["with_map"]
    written = (ROOT / "CONTRIBUTING.md").read_text()
    assert written == with_map(written)


def test_the_index_of_runbooks_is_up_to_date() -> None:
    index = runpy.run_path(str(ROOT / "scripts" / "runbooks.py"))["index"]()
    assert (ROOT / "alerts" / "runbooks" / "README.md").read_text() == index


def test_the_reference_of_events_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "event_docs.py"))["page"]()
    assert (ROOT / "docs" / "EVENTS.md").read_text() == page


def test_an_event_is_refused_without_each_field_that_the_reference_requires() -> None:
    written = (ROOT / "docs" / "EVENTS.md").read_text()
    section = written.split("## TRAINING_STARTED\n")[1].split("\n## ")[0]
    required = re.search(r"\*\*Required:\*\* (.*)", section)
    assert required is not None
    names = set(re.findall(r"`(\w+)`", required[1]))
    data: dict[str, object] = {
        "n_envs": 1,
        "max_epochs": 1,
        "max_batches": 1,
        "task": "t",
        "host_params": 1,
        "slot_ids": ["r0c0"],
        "clip_ratio": 0.2,
        "policy_device": "cpu",
        "env_devices": ["cpu"],
        "reward_mode": "shaped",
    }
    assert names == data.keys()

    def report(fields: dict[str, object]) -> Event:
        event = {"event_type": "TRAINING_STARTED", "timestamp": "2026-06-01T08:00:00Z"}
        return read({**event, "data": fields}, lambda: datetime(2026, 6, 1, tzinfo=UTC))

    assert report(data).type == "TRAINING_STARTED"
    for name in names:
        with pytest.raises(Rejected):
            report({other: value for other, value in data.items() if other != name})


def test_every_module_that_a_recipe_names_is_there() -> None:
    package = ROOT / "exporter" / "esper_exporter"
    written = (ROOT / "CONTRIBUTING.md").read_text().split("## Code map")[0]
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", written))
    assert len(named) > 20
    assert {
        one for one in named if not (package / one).exists() and not (ROOT / one).exists()
    } == set()


def test_the_house_shows_every_room() -> None:
    package = ROOT / "exporter" / "esper_exporter"
    rooms = {path.parent.relative_to(package).parts[0] for path in package.glob("*/__init__.py")}
    house = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1].split("\n## ")[0]
    picture = house.split("```")[1]
    tools = {"commands", "doctor", "stack"}
    assert len(rooms) > 10
    assert rooms - set(re.findall(r"`(\w+)/`", house)) == set()
    assert rooms - tools - set(re.findall(r"(\w+)/", picture)) == set()


def test_the_shell_completes_commands_options_and_choices() -> None:
    script = ROOT / "exporter/esper_exporter/commands/completions/esper-exporter.bash"

    def completed(*words: str) -> set[str]:
        code = (
            f"source {script}; COMP_WORDS=({' '.join(repr(w) for w in words)});"
            f" COMP_CWORD={len(words) - 1}; _shtab_esper_exporter esper-exporter"
            f" {words[-1]!r} {words[-2]!r};"
            ' printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", code], capture_output=True, text=True, timeout=20, check=False
        )
        return set(done.stdout.split())

    assert {"replay"} <= completed("esper-exporter", "rep")
    assert {"--once", "--recording"} <= completed("esper-exporter", "replay", "--")
    assert {"run1", "run2b"} <= completed("esper-exporter", "replay", "--recording", "run")
