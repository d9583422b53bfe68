"""The command line as a user meets it: pages, exit codes, one-line errors, signals, a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from itertools import cycle
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from esper_exporter import __version__
from esper_exporter.cli import main
from esper_exporter.metrics.catalogue import catalogue
from support.command import COMMAND, environment, run, serving
from support.pages import samples, value, values
from support.programs import end, wait_until
from support.recordings import telemetry, telemetry_lines

EVENTS = "esper_exporter_events_total"
REJECTED = "esper_exporter_events_rejected_total"


def wall_clock_free(page: str) -> dict[object, float]:
    """The samples that depend on the recording alone."""
    return {
        key: each
        for key, each in samples(page).items()
        if not key[0].startswith(("esper_exporter_", "esper_host_"))
    }


# -- one page -----------------------------------------------------------------------------------


def test_a_file_without_a_usable_event_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no telemetry\nat all\n")
    done = run("replay", tmp_path / "notes", "--once")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"none of its 2 lines is an event that can be used" in done.stderr


def test_once_prints_the_final_page_of_a_recording() -> None:
    done = run("replay", telemetry("run2b"), "--once")
    assert (done.returncode, done.stderr) == (0, b"")
    page = done.stdout.decode()
    assert value(page, EVENTS) == len(telemetry_lines("run2b"))
    assert sum(values(page, REJECTED)) == 0


@pytest.mark.parametrize(("until", "active"), [((), 0.0), (("--until", "400"), 1.0)])
def test_a_recording_that_stops_short_is_not_active_but_amid_it(
    until: tuple[str, ...], active: float
) -> None:
    page = run("replay", telemetry("run2b"), "--once", *until).stdout.decode()
    assert value(page, "esper_run_active") == active
    assert value(page, "esper_run_finished") == 0.0


def test_the_built_in_recording_is_the_file() -> None:
    by_name = run("replay", "--recording", "run2b", "--once").stdout.decode()
    by_file = run("replay", telemetry("run2b"), "--once").stdout.decode()
    assert wall_clock_free(by_name) == wall_clock_free(by_file) != {}


@pytest.mark.parametrize("until", [0, 1, 400, 776, 10_000])
def test_until_stops_after_that_line(until: int) -> None:
    done = run("replay", telemetry("run2b"), "--once", "--until", until)
    assert value(done.stdout.decode(), EVENTS) == min(until, 776)


def test_standard_input_is_read_plain_and_compressed() -> None:
    text = b"\n".join(telemetry_lines("run2b"))
    pages = [
        run("replay", "-", "--once", stdin=stdin).stdout.decode()
        for stdin in (text, telemetry("run2b").read_bytes())
    ]
    assert wall_clock_free(pages[0]) == wall_clock_free(pages[1])
    assert value(pages[0], EVENTS) == 776


def test_several_files_are_replayed_one_after_the_other(tmp_path: Path) -> None:
    lines = telemetry_lines("run2b")
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_bytes(b"\n".join(lines[:300]) + b"\n")
    second.write_bytes(b"\n".join(lines[300:]) + b"\n")
    split = run("replay", first, second, "--once").stdout.decode()
    whole = run("replay", telemetry("run2b"), "--once").stdout.decode()
    assert wall_clock_free(split) == wall_clock_free(whole)


def test_openmetrics_is_printed_on_request() -> None:
    done = run("replay", telemetry("run2b"), "--once", "--format", "openmetrics")
    page = done.stdout.decode()
    assert page.endswith("# EOF\n")
    assert len(list(text_string_to_metric_families(page))) > 50


def test_the_run_can_be_named() -> None:
    page = run("replay", telemetry("run2b"), "--once", "--run-id", "night 7").stdout.decode()
    assert {dict(key[1])["run_id"] for key in wall_clock_free(page)} == {"night 7"}


def test_bad_lines_are_counted_and_change_nothing_else(tmp_path: Path) -> None:
    lines = list(telemetry_lines("run2b"))
    kinds = (b"garbage", b"[1]", b"\xff\xfe\x00", b"{" * 999, b'"x"', b'{"event_type": 3}', b"null")
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join(b for pair in zip(lines, cycle(kinds), strict=False) for b in pair))
    done = run("replay", path, "--once")
    page = done.stdout.decode()
    assert done.returncode == 0
    assert sum(values(page, REJECTED)) == 776
    clean = run("replay", telemetry("run2b"), "--once").stdout.decode()
    assert wall_clock_free(page) == wall_clock_free(clean)
    said = done.stderr.decode().splitlines()
    assert 0 < len(said) <= 8, "each kind of problem is logged once"
    assert all(line.startswith("esper-exporter: warning: ") for line in said)


def test_a_truncated_gzip_gives_its_page_one_warning_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(telemetry("run1").read_bytes()[:200_000])
    done = run("replay", path, "--once")
    assert done.returncode == 1
    assert (value(done.stdout.decode(), EVENTS) or 0) > 1000
    assert done.stderr.decode().splitlines() == [
        f"esper-exporter: warning: {path}: it ends in the middle of its gzip data;"
        " replayed the lines before that"
    ]


def test_a_recording_neither_reads_nor_writes_what_a_live_run_keeps(tmp_path: Path) -> None:
    arguments = ("replay", "--recording", "run2b", "--once", "--run-id", "night-7")
    assert run(*arguments, ESPER_EXPORTER_STATE_DIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["replay"], "nothing to replay: name a FILE, or --recording run1 or run2b"),
        (["replay", "x", "--recording", "run1"], "exclude each other"),
        (["replay", "-", "-"], "only once"),
        (["replay", "x", "--speed", "-1"], "--speed: -1 is not a speed"),
        (["replay", "x", "--speed", "nan"], "--speed: nan is not a speed"),
        (["replay", "x", "--speed", "fast"], "'fast' is not a number"),
        (["replay", "x", "--until", "-3"], "--until: -3 is negative"),
        (["replay", "x", "--until", "few"], "'few' is not a whole number"),
        (["replay", "x", "--port", "70000"], "70000 is not a port"),
        (["replay", "x", "--once", "--port", "1"], "--port has no meaning"),
        (["replay", "x", "--once", "--host", "::1"], "--host has no meaning"),
        (["replay", "x", "--once", "--web-config", "w"], "--web-config has no meaning"),
        (["replay", "x", "--once", "--follow"], "--once with --follow never ends"),
        (["replay", "x", "--format", "text"], "--format is for --once"),
        (["replay", "-", "--follow"], "--follow needs a file that grows"),
        (["replay", "--recording", "run1", "--follow"], "--follow needs a file that grows"),
        (["replay", "x", "--recording", "run9"], "invalid choice: 'run9'"),
        (["catalog", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_usage_prints_one_line_and_exits_with_code_2(
    arguments: list[str], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert reported in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "reported"), [("missing.jsonl", "No such file or directory"), (".", "is a directory")]
)
def test_an_unreadable_file_is_reported_before_anything_is_served(
    name: str, reported: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    assert main(["replay", str(path)]) == 1
    assert capsys.readouterr().err == f"esper-exporter: error: {path}: {reported}\n"


def test_a_port_in_use_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["replay", "--recording", "run2b", "--port", str(port)]) == 1
    reported = capsys.readouterr().err
    assert reported.startswith(f"esper-exporter: error: port {port} on 127.0.0.1 is taken by ")
    assert reported.count("\n") == 1


def test_a_bad_environment_variable_is_reported_by_name() -> None:
    done = run("replay", "--recording", "run2b", "--once", ESPER_EXPORTER_MAX_SERIES="many")
    assert done.returncode == 1
    assert done.stderr.startswith(b"esper-exporter: error: ESPER_EXPORTER_MAX_SERIES must be ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [("catalog",), ("replay", "--recording", "run2b", "--once")])
def test_a_reader_that_goes_away_is_no_error(arguments: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(30) == 0


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "catalog"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"esper-exporter: error: standard output: No space left on device\n"


# -- catalogue and version ----------------------------------------------------------------------


def test_the_catalogue_as_json_has_the_documented_form() -> None:
    found = json.loads(run("catalog", "--format", "json").stdout)
    assert list(found) == ["metrics", "unexported"]
    fields = ["name", "type", "unit", "help", "labels", "sources", "scale"]
    assert all(list(metric) == fields for metric in found["metrics"])
    assert all(list(field) == ["path", "reason"] for field in found["unexported"])
    assert [m["name"] for m in found["metrics"]] == [m.name for m in catalogue().metrics]
    assert all(isinstance(m["scale"], float) and m["sources"] for m in found["metrics"])


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_the_catalogue_for_people_names_every_metric(form: str) -> None:
    text = run("catalog", "--format", form).stdout.decode()
    assert [m.name for m in catalogue().metrics if m.name not in text] == []


def test_the_version_is_the_package_s() -> None:
    assert run("version").stdout.decode() == f"esper-exporter {__version__}\n"
    assert run("--version").stdout.decode() == f"esper-exporter {__version__}\n"


def test_looking_at_help_loads_no_exporter() -> None:
    done = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], "replay", "--help"],
        capture_output=True,
        env=environment(),
        check=True,
    )
    loaded = {line.split(b"|")[-1].strip() for line in done.stderr.splitlines()}
    assert b"esper_exporter.cli" in loaded
    assert not loaded & {b"numpy", b"prometheus_client", b"h11", b"tqdm", b"torch"}


# -- serving ------------------------------------------------------------------------------------


def test_a_replay_is_served_until_a_stop_request_even_after_its_last_line() -> None:
    with serving("--recording", "run2b", "--speed", 0) as running:
        running.wait_for(r"replayed 776 lines; still serving http://127\.0\.0\.1:\d+/metrics")
        page = running.page()
        assert value(page, EVENTS) == 776
        assert running.end() == 0
    assert len(running.said) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_replay_in_recorded_time_at_once(number: int) -> None:
    with serving("--recording", "run1", "--speed", 0.01) as running:
        assert value(running.page(), EVENTS) is not None
        running.process.send_signal(number)
        assert running.process.wait(5) == 0
    assert len(running.said) == 1


def test_recorded_time_passes_while_it_is_served() -> None:
    with serving("--recording", "run2b", "--speed", 20) as running:
        first = value(running.page(), EVENTS)
        assert first is not None
        assert first < 776
        running.wait_for("replayed 776 lines")
        assert value(running.page(), EVENTS) == 776


def test_until_keeps_serving_the_page_of_that_line() -> None:
    with serving("--recording", "run1", "--speed", 0, "--until", 1000) as running:
        running.wait_for("replayed 1,000 lines; still serving")
        assert value(running.page(), EVENTS) == 1000


def test_a_growing_file_is_exported_as_it_grows(tmp_path: Path) -> None:
    lines = telemetry_lines("run2b")
    path = tmp_path / "telemetry.jsonl"
    with serving(path, "--follow") as running:
        assert value(running.page(), EVENTS) == 0
        with path.open("wb", buffering=0) as file:
            file.write(b"\n".join(lines[:500]) + b"\n" + lines[500][:60])
            wait_until(lambda: value(running.page(), EVENTS) == 500, "500 events")
            file.write(lines[500][60:] + b"\n")
            wait_until(lambda: value(running.page(), EVENTS) == 501, "501 events")
        assert sum(values(running.page(), REJECTED)) == 0
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(5) == 0


def test_lines_from_a_pipe_are_exported_as_they_arrive() -> None:
    with serving("-", "--speed", 0) as running:
        pipe = running.process.stdin
        assert pipe is not None
        running.wait_for("serving")
        for count, line in enumerate(telemetry_lines("run2b")[:3], start=1):
            pipe.write(line + b"\n")
            pipe.flush()
            wait_until(lambda want=count: value(running.page(), EVENTS) == want, f"event {count}")
        assert running.end() == 0


# -- a terminal ---------------------------------------------------------------------------------


def read_terminal(descriptor: int) -> str:
    """Everything that is written to a terminal until the other end is closed."""
    written = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            piece = b""
        if not piece:
            return written.decode()
        written += piece


def test_a_terminal_shows_a_progress_bar_and_keeps_warnings_readable(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"garbage\n" + b"\n".join(telemetry_lines("run2b")))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "replay", str(path), "--once"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(COLUMNS="100", TERM="xterm"),
    )
    os.close(theirs)
    try:
        shown = read_terminal(ours)
    finally:
        os.close(ours)
        code = end(process)
    assert code == 0
    assert "line 777 100% |" in shown
    assert any("warning: event refused" in line for line in shown.replace("\r", "\n").split("\n"))
