"""Any moment again: the page at a time or an update is that of `replay --until`."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from esper_exporter.journal.store import compact

MOMENTS = int(os.environ.get("ESPER_JOURNAL_MOMENTS", "4"))


def lines_of(name: str) -> list[bytes]:
    with recording(name) as path:
        return gzip.decompress(path.read_bytes()).splitlines()


def of_runs(page: str) -> list[str]:
    """The page without what the exporter says of itself."""
    own = ("esper_exporter_", "process_", "python_")
    return [
        line
        for line in page.splitlines()
        if line and not line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(own)
    ]


def printed(capsysbinary: pytest.CaptureFixture[bytes], *arguments: str) -> list[str]:
    assert main(list(arguments)) == 0
    return of_runs(capsysbinary.readouterr().out.decode())


def kept(directory: Path, lines: list[bytes]) -> str:
    """A journal of the lines; the name of its run."""
    exporter = Exporter(port=0, state_dir="off", watch_process=False, journal=directory)
    for line in lines:
        exporter.emit_line(line)
    assert exporter.journal is not None
    exporter.journal.flush(30)
    exporter.close()
    return str(json.loads(lines[0])["data"]["episode_id"])


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_the_page_at_a_time_is_that_of_replay_until(
    name: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = lines_of(name)
    kept(tmp_path, lines)
    chance = random.Random(7)
    with recording(name) as path:
        for turn in range(MOMENTS):
            number = chance.randint(1, len(lines))
            moment = json.loads(lines[number - 1])["timestamp"]
            while number < len(lines) and json.loads(lines[number])["timestamp"] == moment:
                number += 1
            expected = printed(capsysbinary, "replay", str(path), "--once", "--until", str(number))
            assert printed(capsysbinary, "page", str(path), "--at", moment) == expected
            if turn == MOMENTS // 2:
                compact(tmp_path)
            assert printed(capsysbinary, "page", str(tmp_path), "--at", moment) == expected


def test_the_page_at_an_update(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = lines_of("run2b")
    number = next(n for n, line in enumerate(lines, 1) if b"ppo_finiteness_skip" in line)
    with recording("run2b") as path:
        expected = printed(capsysbinary, "replay", str(path), "--once", "--until", str(number))
        assert printed(capsysbinary, "page", str(path), "--update", "3") == expected
        assert main(["page", str(path), "--update", "99"]) == 1
        assert main(["page", str(path), "--at", "2001-01-01"]) == 1


def test_a_journal_is_replayed_as_a_file_is(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = lines_of("run2b")
    kept(tmp_path, lines)
    with recording("run2b") as path:
        expected = printed(capsysbinary, "replay", str(path), "--once")
    assert printed(capsysbinary, "replay", str(tmp_path), "--once") == expected
