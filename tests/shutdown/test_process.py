"""A process ends as it would have ended without the exporter, and its scrapers see how it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.command import environment
from support.pages import value, values
from support.programs import wait_until

TESTS = Path(__file__).parents[1]
TRAINER = TESTS / "support" / "trainer.py"
LATCH = "esper_tamiyo_head_nonfinite_latched"
LINGER = "120"
"""Seconds. On a very busy machine a test may not run for half a minute."""


class Trainer:
    """A process of trainer.py."""

    def __init__(self, how: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(TRAINER), how, "night-7"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(
                PYTHONPATH=os.pathsep.join([str(TESTS.parent / "exporter"), str(TESTS)]),
                **{"ESPER_EXPORTER_LINGER": LINGER, **variables},
            ),
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def page(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def scraped(self) -> None:
        """Scrape until the process knows of it: a page is delivered before that is counted."""
        wait_until(
            lambda: (value(self.page(), "esper_exporter_scrapes_total") or 0.0) >= 1.0,
            "a scrape is counted",
        )

    def scraped_to_its_end(self) -> list[str]:
        """Every page that it serves until the process has ended."""
        pages: list[str] = []

        def ended() -> bool:
            with suppress(OSError):
                pages.append(self.page())
            return self.process.poll() is not None

        wait_until(ended, "it ends once its page was scraped")
        return pages

    def page_with(self, name: str, expected: float, **labels: str) -> str:
        """The first page on which a sample has a value."""
        pages: list[str] = []

        def shown() -> bool:
            pages.append(self.page())
            return value(pages[-1], name, **labels) == expected

        wait_until(shown, f"{name}{labels} == {expected}")
        return pages[-1]

    def said_while_it_waits(self) -> str:
        """The line of the log that says that it stays for its scrapers."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "staying up" in line:
                return line
        pytest.fail(f"it does not stay: {said}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
def trainers(tmp_path: Path) -> Iterator[type[Trainer]]:
    made: list[Trainer] = []

    class Watched(Trainer):
        def __init__(self, how: str, **variables: str) -> None:
            variables.setdefault("ESPER_EXPORTER_STATE_DIR", str(tmp_path / "state"))
            super().__init__(how, **variables)
            made.append(self)

    yield Watched
    for trainer in made:
        if trainer.process.poll() is None:
            trainer.process.kill()
            trainer.process.communicate()


def without_exporter(how: str) -> tuple[int, str, str]:
    trainer = Trainer(how, TRAINER_UNWATCHED="1", ESPER_EXPORTER_STATE_DIR="off")
    return trainer.end()


@pytest.mark.parametrize(
    ("how", "reason", "code"),
    [
        ("raise", "nonfinite", 1),
        ("healthy-oom", "oom", 1),
        ("healthy-thread", "nonfinite", 0),
        ("healthy-interrupt", "signal", -signal.SIGINT),
        ("healthy-mute", "exception", 1),
    ],
)
def test_a_failure_is_on_the_page_until_two_scrapes_have_taken_it(
    trainers: type[Trainer], how: str, reason: str, code: int
) -> None:
    trainer = trainers(how, TRAINER_GO="1")
    trainer.scraped()
    assert trainer.process.stdin is not None
    trainer.process.stdin.write("go\n")
    trainer.process.stdin.flush()
    page = trainer.page_with("esper_run_failed", 1.0, reason=reason)
    assert value(page, "esper_run_finished") == 0.0
    assert value(page, "esper_run_end_timestamp_seconds") is not None
    assert trainer.process.poll() is None
    trainer.scraped_to_its_end()
    returned, _, said = trainer.end()
    assert returned == code
    reported, _, traceback = without_exporter(how)
    assert reported == code
    # The traceback is the same, line by line.
    assert [line for line in traceback.splitlines() if line in said.splitlines()] == (
        traceback.splitlines()
    )


@pytest.mark.parametrize("closes", ["0", "1"])
def test_a_run_that_returns_has_finished(trainers: type[Trainer], closes: str) -> None:
    trainer = trainers("healthy-return", TRAINER_GO="1", TRAINER_CLOSES=closes)
    trainer.page_with("esper_run_finished", 0.0)
    trainer.scraped()
    assert trainer.process.stdin is not None
    trainer.process.stdin.write("go\n")
    trainer.process.stdin.flush()
    page = trainer.page_with("esper_run_finished", 1.0)
    assert value(page, "esper_run_failed", reason="unknown") == 0.0
    trainer.scraped_to_its_end()
    assert trainer.end()[0] == 0


@pytest.mark.parametrize("how", ["healthy-return", "healthy-raise"])
def test_batches_that_were_done_just_before_the_end_are_waited_with(
    trainers: type[Trainer], how: str
) -> None:
    trainer = trainers(how, TRAINER_GO="1", TRAINER_FINISHES="1")
    trainer.page_with("esper_run_finished", 0.0)
    trainer.scraped()
    assert trainer.process.stdin is not None
    trainer.process.stdin.write("go\n")
    trainer.process.stdin.flush()
    page = trainer.page_with("esper_run_finished", 1.0)
    assert value(page, "esper_run_failed", reason="nonfinite") == 0.0
    trainer.scraped_to_its_end()
    assert trainer.end()[0] == (how == "healthy-raise")


def test_a_good_end_without_scrapers_ends_at_once(trainers: type[Trainer]) -> None:
    code, out, said = trainers("healthy-return").end()
    assert (code, out, said) == (0, "ended\n", "")


def test_an_exit_code_stays_and_a_latch_is_waited_with(trainers: type[Trainer]) -> None:
    trainer = trainers("exit")
    pages = trainer.scraped_to_its_end()
    assert len([page for page in pages if value(page, LATCH, head="op", kind="nan")]) >= 2
    assert trainer.end()[0] == 3


def test_sigterm_ends_as_ever_once_it_was_seen(trainers: type[Trainer]) -> None:
    trainer = trainers("wait")
    assert trainer.process.stdout is not None
    assert trainer.process.stdout.readline() == "waiting\n"
    trainer.process.terminate()
    page = trainer.page_with("esper_run_failed", 1.0, reason="signal")
    assert value(page, LATCH, head="op", kind="nan") == 1.0
    assert trainer.process.poll() is None
    trainer.scraped_to_its_end()
    assert trainer.end()[0] == -signal.SIGTERM


def test_a_second_sigterm_ends_at_once(trainers: type[Trainer]) -> None:
    trainer = trainers("wait", ESPER_EXPORTER_LINGER="600", ESPER_EXPORTER_TERM_LINGER="600")
    assert trainer.process.stdout is not None
    trainer.process.stdout.readline()
    trainer.process.terminate()
    trainer.page_with("esper_run_failed", 1.0, reason="signal")

    def ended_by_another() -> bool:
        trainer.process.terminate()  # those that come with the first are one with it
        return trainer.process.poll() is not None

    wait_until(ended_by_another, "a later SIGTERM ends it")
    assert trainer.end()[0] == -signal.SIGTERM


def test_sigterm_that_comes_twice_at_once_is_one(trainers: type[Trainer]) -> None:
    trainer = trainers("twice")
    trainer.page_with("esper_run_failed", 1.0, reason="signal")
    assert trainer.process.poll() is None
    trainer.scraped_to_its_end()
    assert trainer.end()[0] == -signal.SIGTERM


def test_ctrl_c_after_sigterm_ends_at_once(trainers: type[Trainer]) -> None:
    trainer = trainers("wait", ESPER_EXPORTER_LINGER="600", ESPER_EXPORTER_TERM_LINGER="600")
    assert trainer.process.stdout is not None
    trainer.process.stdout.readline()
    trainer.process.terminate()
    assert "SIGTERM again or Ctrl-C ends at once" in trainer.said_while_it_waits()
    trainer.process.send_signal(signal.SIGINT)
    code, _, rest = trainer.end()
    assert code == -signal.SIGTERM
    assert "KeyboardInterrupt" not in rest


def test_a_sigterm_that_the_training_puts_off_does_not_end_it(trainers: type[Trainer]) -> None:
    trainer = trainers("healthy-masked", ESPER_EXPORTER_LINGER="0")
    trainer.scraped()
    assert trainer.process.stdout is not None
    assert trainer.process.stdout.readline() == "waiting\n"
    trainer.process.terminate()
    assert trainer.end()[:2] == (0, "put off\nended\n")


def test_no_thread_of_the_exporter_takes_a_signal(trainers: type[Trainer], tmp_path: Path) -> None:
    trainer = trainers(
        "healthy-threads",
        TRAINER_GO="1",
        ESPER_EXPORTER_LINGER="0",
        ESPER_EXPORTER_FILE_SD=str(tmp_path / "targets"),
        ESPER_EXPORTER_JOURNAL=str(tmp_path / "journal"),
        ESPER_EXPORTER_HOST_VITALS="on",
    )
    trainer.scraped()
    assert trainer.process.stdin is not None
    trainer.process.stdin.write("go\n")
    trainer.process.stdin.flush()
    code, out, said = trainer.end()
    assert code == 0, said
    names, takes_signals = json.loads(out.splitlines()[0])
    started = {"server", "host", "registration", "journal"}
    assert {f"esper-exporter-{name}" for name in started} <= set(names)
    assert takes_signals == []


def test_after_sigterm_it_stays_no_longer_than_the_grace_period(trainers: type[Trainer]) -> None:
    trainer = trainers("wait", ESPER_EXPORTER_TERM_LINGER="0.2")
    assert trainer.process.stdout is not None
    trainer.process.stdout.readline()
    trainer.process.terminate()
    code, _, said = trainer.end()
    assert code == -signal.SIGTERM
    assert "staying up to 0 s" in said


def test_a_handler_of_the_users_own_decides_what_sigterm_means(trainers: type[Trainer]) -> None:
    trainer = trainers("handled")
    assert trainer.process.stdout is not None
    trainer.process.stdout.readline()
    trainer.process.terminate()
    trainer.page_with("esper_run_failed", 1.0, reason="signal")
    trainer.scraped_to_its_end()
    code, out, _ = trainer.end()
    assert (code, out) == (7, "my own handler\n")


def test_a_second_ctrl_c_ends_the_wait(trainers: type[Trainer]) -> None:
    trainer = trainers("raise")
    trainer.page_with("esper_run_failed", 1.0, reason="nonfinite")
    assert "(Ctrl-C ends at once)" in trainer.said_while_it_waits()
    trainer.process.send_signal(signal.SIGINT)
    code, _, rest = trainer.end()
    assert code == 1
    assert "KeyboardInterrupt" not in rest


def test_what_sigkill_ends_has_left_its_latches_and_its_page(
    trainers: type[Trainer], tmp_path: Path
) -> None:
    trainer = trainers("kill", ESPER_EXPORTER_TEXTFILE_DIR=str(tmp_path / "textfile"))
    assert trainer.end()[0] == -signal.SIGKILL
    for path in (
        tmp_path / "state" / "esper-night-7-rank0.final.prom",
        tmp_path / "textfile" / "esper-night-7-rank0.prom",
    ):
        page = path.read_text()
        assert value(page, LATCH, head="op", kind="nan") == 1.0
        assert value(page, "esper_run_finished") == 0.0


@pytest.mark.parametrize(
    "how", ["raise", "return", "exit", "oom", "thread", "mute", "interrupt", "wait"]
)
def test_what_a_hub_still_queues_at_the_end_is_on_the_last_page(
    trainers: type[Trainer], tmp_path: Path, how: str
) -> None:
    trainer = trainers(how, ESPER_EXPORTER_LINGER="0", TRAINER_HUB_DELAY="0.1")
    if how == "wait":
        assert trainer.process.stdout is not None
        assert trainer.process.stdout.readline() == "waiting\n"
        trainer.process.terminate()
    trainer.end()
    assert len(list((tmp_path / "state").glob("*.latches.json"))) == 1
    page = (tmp_path / "state" / "esper-night-7-rank0.final.prom").read_text()
    assert value(page, LATCH, head="op", kind="nan") == 1.0
    ended_well = how in ("return", "exit")
    assert value(page, "esper_run_finished") == float(ended_well)
    assert (1.0 in values(page, "esper_run_failed")) is not ended_well


def test_a_resumed_run_shows_what_the_process_before_it_saw(
    trainers: type[Trainer], tmp_path: Path
) -> None:
    trainers("kill").end()
    trainer = trainers("healthy-wait")
    page = trainer.page_with("esper_tamiyo_updates_total", 1.0)
    assert value(page, LATCH, head="op", kind="nan") == 1.0
    assert value(page, LATCH, head="slot", kind="nan") == 0.0
    assert value(page, "esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 1.0


def test_without_linger_it_ends_at_once(trainers: type[Trainer]) -> None:
    code, _, said = trainers("raise", ESPER_EXPORTER_LINGER="0").end()
    assert code == 1
    assert "staying" not in said
