"""The examples in the documents and in examples/ run and do what the text says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from esper_exporter import Exporter
from esper_exporter.settings import PREFIX, RUN_ID_VARIABLE, Settings, read_settings
from support.command import environment
from support.pages import value, values
from support.programs import program
from support.recordings import telemetry_lines

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/INTEGRATION.md")
NO_TORCH = "not run: needs torch"
LATCHED = "esper_tamiyo_head_nonfinite_latched"


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a document in a language."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block_with(document: str, language: str, words: str) -> str:
    """The one block that holds these words."""
    (found,) = (block for block in blocks(document, language) if words in block)
    return found


class Hub:
    """The part of esper's telemetry hub that an attached backend sees."""

    def __init__(self) -> None:
        self.backends: list[Exporter] = []

    def add_backend(self, backend: Exporter) -> None:
        self.backends.append(backend)
        backend.start()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub behind ``esper.nissa.get_hub``."""
    hub = Hub()
    nissa = types.ModuleType("esper.nissa")
    nissa.get_hub = lambda: hub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "esper", types.ModuleType("esper"))
    monkeypatch.setitem(sys.modules, "esper.nissa", nissa)
    yield hub
    for backend in hub.backends:
        backend.close()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples' default port may be taken on the machine that runs the tests, and nobody
    comes to scrape what a latched run lingers for."""
    monkeypatch.setenv("ESPER_EXPORTER_PORT", "0")
    monkeypatch.setenv("ESPER_EXPORTER_LINGER", "0")
    for name in (PREFIX + "RUN_ID", RUN_ID_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def run_block(source: str) -> dict[str, object]:
    """Run an example and return the names it leaves."""
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(source, "example", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("document", "number"),
    [(document, n) for document in DOCUMENTS for n in range(len(blocks(document, "python")))],
)
def test_every_python_example_runs(document: str, number: int, hub: Hub) -> None:
    source = blocks(document, "python")[number]
    if "import torch" in source:
        pytest.importorskip("torch", reason=NO_TORCH)
    run_block(source)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_an_exporter_attached_as_documented_shows_the_events_of_the_hub(
    document: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    run_block(block_with(document, "python", "get_hub().add_backend"))
    (backend,) = hub.backends
    assert capsys.readouterr().out == f"{backend.url}\n"
    with socket.create_connection(("127.0.0.1", backend.port or 0), timeout=5):
        pass
    for line in telemetry_lines("run2b"):
        backend.emit_line(line)
    page = backend.render().decode()
    assert value(page, LATCHED, head="tempo", kind="nan", run_id="night-7") == 1.0


def test_the_loop_example_shows_its_last_update() -> None:
    page = str(run_block(block_with("docs/INTEGRATION.md", "python", "for update in"))["page"])
    assert value(page, "esper_tamiyo_policy_loss", run_id="my-run") == 0.5 / 3
    assert value(page, "esper_tamiyo_head_entropy_ratio", head="tempo") == 0.91
    assert value(page, "esper_tamiyo_updates_total") == 3
    assert sum(values(page, "esper_exporter_events_rejected_total")) == 0


def test_the_snapshot_example_shows_the_snapshot() -> None:
    page = str(run_block(block_with("docs/INTEGRATION.md", "python", "observe_snapshot"))["page"])
    assert value(page, "esper_tamiyo_policy_loss") == 0.25
    assert value(page, LATCHED, head="tempo", kind="nan") == 1.0
    assert value(page, LATCHED, head="op", kind="nan") == 0.0


def test_the_registry_example_shows_the_run_in_a_page_of_prometheus_client() -> None:
    page = str(run_block(block_with("docs/INTEGRATION.md", "python", "registry.register"))["page"])
    assert value(page, "esper_run_events_total", type="PLATEAU_DETECTED", run_id="night-7") == 1.0


def test_the_collector_example_is_on_the_page() -> None:
    page = str(run_block(block_with("docs/INTEGRATION.md", "python", "add_collector"))["page"])
    assert value(page, "replay_buffer_transitions") == 4096
    assert value(page, "esper_exporter_collector_success", collector="queue") == 1.0


def test_the_rendering_example_gives_both_formats() -> None:
    names = run_block(block_with("docs/INTEGRATION.md", "python", "openmetrics ="))
    assert bytes(names["openmetrics"]).endswith(b"# EOF\n")  # type: ignore[call-overload]
    assert b"# EOF" not in bytes(names["text"])  # type: ignore[call-overload]


def test_the_example_script_of_a_loop_runs_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "own_loop.py"), "20", "0"],
        capture_output=True,
        text=True,
        env=environment(ESPER_EXPORTER_PORT="0"),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"serving http://127\.0\.0\.1:\d+/metrics\n", done.stdout)


def test_a_ppo_loop_is_instrumented_in_ten_lines_and_its_example_runs() -> None:
    pytest.importorskip("torch", reason=NO_TORCH)
    script = ROOT / "examples" / "ppo_loop.py"
    marked = [line for line in script.read_text().splitlines() if "# probe" in line]
    assert len(marked) == 1 + 10, "the first is the docstring's"
    unmarked = re.sub(r".*# probe.*\n", "", script.read_text())
    assert not re.search(r"(?<!import )\b(probe|update|exporter)\.(?!url)", unmarked)
    namespace = run_block(script.read_text().replace("exporter.start()", "made.append(exporter)"))
    made: list[Exporter] = []
    namespace["made"] = made
    namespace["main"](2)  # type: ignore[operator]
    page = made[0].render().decode()
    assert value(page, "esper_tamiyo_updates_total") == 2
    assert value(page, "esper_tamiyo_return_mean") > 1.0
    assert value(page, "esper_tamiyo_head_grad_norm", head="op") > 0.0
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0


def test_the_scrape_configurations_are_valid(tmp_path: Path) -> None:
    (documented,) = blocks("docs/INTEGRATION.md", "yaml")
    (tmp_path / "documented.yml").write_text(documented)
    for path in (tmp_path / "documented.yml", ROOT / "examples" / "prometheus.yml"):
        checked = subprocess.run(
            [program("promtool"), "check", "config", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert yaml.safe_load(path.read_text())["scrape_configs"][0]["job_name"] == "esper"


OF_THE_USER = ("share", "state_dir")
"""Directories whose default depends on who runs the process."""


def test_the_table_of_settings_is_complete_with_defaults() -> None:
    text = (ROOT / "docs" / "INTEGRATION.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    assert {name for name, _, _ in rows} == {field.name for field in fields(Settings)}
    defaults = read_settings({}, environ={})
    for name, variables, default in rows:
        assert f"`{PREFIX}{name.upper()}`" in variables
        if (plain := getattr(defaults, name)) is not None and name not in OF_THE_USER:
            assert yaml.safe_load(default.strip("`")) == plain, name
