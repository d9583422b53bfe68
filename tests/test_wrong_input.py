"""Thirty-odd wrong inputs: one clear sentence, the right exit code, nothing left behind."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.settings import read_settings
from support.command import run
from support.ports import free_port
from support.recordings import telemetry, telemetry_lines


@dataclass(frozen=True)
class Wrong:
    """A command line, what it must answer, and what it may leave."""

    arguments: tuple[str, ...]
    code: int
    sentence: str
    variables: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(self.arguments) + " ".join(self.variables)


RUN = ("replay", "--recording", "run2b", "--once")

WRONG = [
    Wrong(("backfill", "good", "--out", "folder"), 1, "--out folder: is a directory; name a file"),
    Wrong(("backfill", "good", "--out", "no/out"), 1, "the directory no does not exist"),
    Wrong(("backfill", "good", "--out", "good"), 1, "is one of the recordings"),
    Wrong(("backfill", "garbage", "--out", "out"), 1, "none of its 2 lines is an event"),
    Wrong(("backfill", "empty", "--out", "out"), 1, "empty: it is empty; out is not written"),
    Wrong(("backfill", "absent", "--out", "out"), 1, "absent: No such file or directory"),
    Wrong(("backfill", "good"), 2, "the following arguments are required: --out"),
    Wrong(("backfill", "good", "--out", "out", "--step", "0"), 2, "0 is not a time span"),
    Wrong(("backfill", "good", "--out", "out", "--label", "job"), 2, "write NAME=VALUE"),
    Wrong(("replay", "empty", "--once"), 1, "empty: it is empty"),
    Wrong(("replay", "empty", "--port", "0"), 1, "empty: it is empty"),
    Wrong(("replay", "garbage", "--once"), 1, "none of its 2 lines is an event"),
    Wrong(("replay", "garbage", "--port", "0", "--speed", "0"), 1, "none of its 2 lines"),
    Wrong(("replay", "blank", "--once"), 1, "its only line is not an event that can be used"),
    Wrong(("replay", "binary", "--once"), 1, "is an event that can be used"),
    Wrong(("replay", "cut.gz", "--once"), 1, "it ends in the middle of its gzip data"),
    Wrong(("replay", "folder", "--once"), 1, "folder: is a directory"),
    Wrong(("replay", "absent"), 1, "absent: No such file or directory"),
    Wrong(("replay",), 2, "nothing to replay: name a FILE, or --recording"),
    Wrong(("replay", "good", "--port", "http"), 2, "'http' is not a whole number"),
    Wrong(("replay", "good", "--host", "no such host", "--port", "0"), 1, "no such host"),
    Wrong(("replay", "good", "--web-config", "absent", "--port", "0"), 1, "absent"),
    Wrong((*RUN, "--run-id", ""), 1, "run_id must have 1 to 256 characters"),
    Wrong((*RUN, "--run-id", "x" * 257), 1, "run_id must have 1 to 256 characters"),
    Wrong(RUN, 1, "ESPER_EXPORTER_PORT must be a whole number, or off, not 'abc'", {"PORT": "abc"}),
    Wrong(RUN, 1, "ESPER_EXPORTER_PORT must lie between 0 and 65535", {"PORT": "70000"}),
    Wrong(RUN, 1, "ESPER_EXPORTER_RANK must be a whole number, not '1.5'", {"RANK": "1.5"}),
    Wrong(RUN, 1, "ESPER_EXPORTER_VITALS_INTERVAL must be", {"VITALS_INTERVAL": "soon"}),
    Wrong(("assets", "good"), 1, "good: is not a directory"),
    Wrong(("assets", "good/below"), 1, "Not a directory"),
    Wrong(("prune", "absent"), 1, "absent: No such file or directory"),
    Wrong(("completion", "tcsh"), 2, "invalid choice: 'tcsh'"),
    Wrong(("catalog", "--format", "xml"), 2, "invalid choice: 'xml'"),
    Wrong(("demo", "--inject", "nan:curve"), 2, "unknown head 'curve'"),
    pytest.param(
        Wrong(("demo", "--telemetry-file", "no/file"), 1, "no/file: No such file or directory"),
        marks=pytest.mark.skipif(find_spec("torch") is None, reason="not run: needs torch"),
    ),
    Wrong(("fly",), 2, "invalid choice: 'fly'"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recordings of every bad kind, in which the commands run."""
    good = telemetry("run2b").read_bytes()
    (tmp_path / "good").write_bytes(good)
    (tmp_path / "empty").touch()
    (tmp_path / "garbage").write_text("garbage\nmore of it\n")
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "binary").write_bytes(os.urandom(2000))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"\n".join(telemetry_lines("run2b")))[:9000])
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_input_gets_one_sentence_its_exit_code_and_leaves_nothing(
    wrong: Wrong, place: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    variables = {f"ESPER_EXPORTER_{name}": text for name, text in wrong.variables.items()}
    done = run(*wrong.arguments, **variables)
    said = done.stderr.decode()
    assert done.returncode == wrong.code, said
    found = [line for line in said.splitlines() if wrong.sentence in line]
    assert len(found) == 1, said
    assert found[0].startswith("esper-exporter"), said
    assert "Traceback" not in said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_the_bare_command_lists_the_commands() -> None:
    done = run()
    assert done.returncode == 0
    for command in (b"demo", b"replay", b"backfill", b"catalog", b"assets", b"completion"):
        assert b"\n    " + command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"port": "abc"}, "port must be a whole number, or off, not 'abc'"),
        ({"port": 1.5}, "port must be a whole number, or off, not 1.5"),
        ({"port": True}, "port must be a whole number, or off, not True"),
        ({"port": []}, "port must be a whole number, or off, not []"),
        ({"port": -1}, "port must lie between 0 and 65535, not -1"),
        ({"host": 5}, "host must be text, not 5"),
        ({"linger": "soon"}, "linger must be a number of seconds, not 'soon'"),
        ({"linger": float("nan")}, "linger must be a number of seconds, 0 for none, not nan"),
        (
            {"strict": "perhaps"},
            "strict must be yes or no (1/0, true/false, on/off), not 'perhaps'",
        ),
        ({"state_dir": 3}, "state_dir must be a path, or off, not 3"),
        ({"web_config": 3}, "web_config must be a path, not 3"),
        ({"rank": object}, "rank must be a whole number, not <class 'object'>"),
        ({"gpu_vitals": "perhaps"}, "gpu_vitals must be auto, on or off, not 'perhaps'"),
    ],
)
def test_a_bad_setting_is_a_value_error_of_one_sentence(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError) as raised:
        Exporter(**arguments)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"port": "9200"}, lambda settings: settings.port == 9200),
        ({"linger": 3}, lambda settings: settings.linger == 3.0),
        ({"strict": "on"}, lambda settings: settings.strict is True),
        ({"state_dir": "off"}, lambda settings: settings.state_dir is None),
        ({"file_sd": "here"}, lambda settings: settings.file_sd == Path("here")),
    ],
)
def test_what_can_be_meant_in_one_way_only_is_accepted(
    given: dict[str, Any], read: Callable[[Any], bool]
) -> None:
    assert read(read_settings(given, environ={}))


def test_a_port_that_is_free_again_serves(place: Path) -> None:
    """A failed start holds no port."""
    port = str(free_port())
    for _ in range(2):
        done = run("replay", "empty", "--port", port)
        assert done.returncode == 1
        assert b"is taken" not in done.stderr
