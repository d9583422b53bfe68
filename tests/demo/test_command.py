"""The command ``esper-exporter demo`` as users run it: a separate process, served and ended."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esper_exporter.cli import main
from esper_exporter.commands import demo_command
from support.command import COMMAND, Serving, environment
from support.pages import value, values

SMALL = ("--envs", "1", "--slots", "2", "--epochs", "4", "--port", "0")


@contextmanager
def training(*arguments: object, **variables: str) -> Iterator[Serving]:
    process = subprocess.Popen(
        [*COMMAND, "demo", *SMALL, *map(str, arguments)],
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    running = Serving(process)
    try:
        yield running
    finally:
        running.end()


def test_a_crash_is_reported_waits_for_two_scrapes_and_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.jsonl"
    arguments = ("--inject", "crash@2", "--telemetry-file", file)
    with training(*arguments, ESPER_EXPORTER_LINGER="60") as running:
        running.wait_for("update 1 · return .* no latches")
        running.wait_for("Crash: a crash")
        running.wait_for("staying up")
        for _ in range(2):
            assert value(running.page(), "esper_run_failed", reason="exception") == 1
        assert running.process.wait(30) == 3
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert events[0]["event_type"] == "TRAINING_STARTED"
    assert [e["event_type"] for e in events].count("TOLARIA_BATCH_COMPLETED") == 1


def test_the_terminal_names_a_latch_that_is_no_head_s() -> None:
    with training("--inject", "grad-nan@1", "--updates", "1") as running:
        running.wait_for("update 1 · .*latched: .*gradients")


SCRAPER = {"X-Prometheus-Scrape-Timeout-Seconds": "10", "User-Agent": "Prometheus/2.53"}


def test_a_stalled_training_is_served_until_ctrl_c_which_ends_it_cleanly() -> None:
    with training("--inject", "stall@2", "--fake-gpus", "2") as running:
        running.wait_for("update 1 ")
        page = running.page(SCRAPER)
        assert value(page, "esper_tamiyo_updates_total") == 1
        assert len(values(page, "esper_gpu_info", source="fake")) == 2
        running.process.send_signal(signal.SIGINT)
        running.wait_for("^interrupted")
        assert value(running.page(SCRAPER), "esper_run_failed", reason="signal") == 1
        assert running.process.wait(30) == 0
    assert not [line for line in running.said if "Traceback" in line]


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("--inject", "nan:curve"), "unknown head 'curve'"),
        (("--envs", "0"), "at least 1"),
        (("--updates", "-1"), "-1 is negative"),
    ],
)
def test_wrong_usage_is_reported_before_anything_starts(
    arguments: tuple[str, ...], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    assert reported in capsys.readouterr().err


def test_what_it_trains_with_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_command, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "pip install torch scikit-learn" in capsys.readouterr().err


def test_an_unwritable_telemetry_file_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--telemetry-file", str(tmp_path)]) == 1
    assert "Is a directory" in capsys.readouterr().err
