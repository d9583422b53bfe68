"""Replaying a file that grows while it is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.replay.lines import Damaged
from esper_exporter.replay.tail import follow_lines


class Script:
    """A Waiter whose waits do what a test wants next, and ask to stop when it wants no more."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.stopping = False
        self.waited: list[float | None] = []
        self._steps = list(steps)

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        if readable is not None:
            return self.stopping
        self.waited.append(seconds)
        if self._steps:
            self._steps.pop(0)()
        else:
            self.stopping = True
        return self.stopping


def ignore(count: int) -> None:
    """Ignores how many bytes were read."""


def followed(path: Path, *steps: Callable[[], object]) -> list[bytes]:
    """The lines that following a file gives while the steps happen to it, one a wait."""
    return list(follow_lines(str(path), Script(*steps), ignore))


def append(path: Path, content: bytes) -> Callable[[], object]:
    def do() -> None:
        with path.open("ab") as file:
            file.write(content)

    return do


def test_lines_are_followed_as_they_are_written_and_none_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"one\ntw")
    script = Script(append(path, b"o"), append(path, b"\nthree\nfo"))
    lines = follow_lines(str(path), script, ignore)
    assert next(lines) == b"one"
    assert script.waited == []
    assert next(lines) == b"two"
    assert len(script.waited) == 2
    assert list(lines) == [b"three"]


def test_a_file_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert followed(path, lambda: None, append(path, b"one\n")) == [b"one"]


def test_a_stop_before_the_file_exists_ends_the_wait(tmp_path: Path) -> None:
    assert followed(tmp_path / "never.jsonl") == []


def test_a_truncated_file_is_read_from_its_beginning_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"first\nsecond\npart")
    found = followed(path, lambda: path.write_bytes(b"new\n"), append(path, b"newer\n"))
    assert found == [b"first", b"second", b"new", b"newer"]


def test_a_rotated_file_is_read_to_its_end_before_its_successor(tmp_path: Path) -> None:
    path, old = tmp_path / "run.jsonl", tmp_path / "run.jsonl.1"
    path.write_bytes(b"one\n")

    def rotate() -> None:
        path.rename(old)
        append(old, b"two\nthree")()
        path.write_bytes(b"four\n")

    assert followed(path, rotate) == [b"one", b"two", b"three", b"four"]


def test_a_file_that_is_gone_for_a_while_is_not_given_up(tmp_path: Path) -> None:
    path, away = tmp_path / "run.jsonl", tmp_path / "away"
    path.write_bytes(b"one\n")
    steps = (lambda: path.rename(away), lambda: path.write_bytes(b"two\n"))
    assert followed(path, *steps) == [b"one", b"two"]


def test_what_cannot_be_followed_is_reported(tmp_path: Path) -> None:
    packed = tmp_path / "run.jsonl.gz"
    packed.write_bytes(gzip.compress(b"one\n"))
    with pytest.raises(Damaged, match="compressed"):
        followed(packed)
    with pytest.raises(Damaged, match="regular file"):
        followed(tmp_path)


@given(st.lists(st.sampled_from([b"a", b"bc\n", b"\n", b"def"]), max_size=12))
def test_following_gives_what_reading_the_finished_file_gives(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("grow") / "run.jsonl"
    path.touch()
    content = b"".join(parts)
    ended = content[: content.rfind(b"\n") + 1]
    assert followed(path, *(append(path, part) for part in parts)) == ended.split(b"\n")[:-1]
