"""What the receiver has not taken waits, within limits, and outlives the process."""

from __future__ import annotations

import os
from pathlib import Path

from esper_exporter.push import backlog as module
from esper_exporter.push.backlog import Backlog
from esper_exporter.push.timeline import Timeline

HOUR = 3600.0


class Queue:
    """A backlog with a clock, and what it dropped and reported."""

    def __init__(self, directory: Path | None, max_bytes: int = 1000, now: float = 100.0) -> None:
        self.dropped: list[tuple[str, int]] = []
        self.problems: list[str] = []
        self.now = now
        self.backlog = Backlog(
            directory,
            max_bytes,
            HOUR,
            lambda reason, samples: self.dropped.append((reason, samples)),
            self.problems.append,
            lambda: self.now,
        )

    def put(self, *bodies: bytes) -> None:
        for body in bodies:
            self.backlog.put(body, len(body), int(self.now * 1000))

    def drain(self) -> list[bytes]:
        found = []
        while (first := self.backlog.first()) is not None:
            found.append(first[1])
            self.backlog.done(first[0])
        return found


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.snappy"))


def test_requests_come_out_in_order_and_leave_nothing(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "to")
    queue.put(b"one", b"two", b"three")
    assert queue.backlog.bytes == 11
    assert len(files(tmp_path)) == 3
    assert queue.drain() == [b"one", b"two", b"three"]
    queue.backlog.close()
    assert list((tmp_path / "to").iterdir()) == []
    assert queue.dropped == []


def test_beyond_its_bytes_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "to", max_bytes=10)
    queue.put(b"aaaa", b"bbbb", b"cccc")
    assert queue.dropped == [("bytes", 4)]
    assert queue.drain() == [b"bbbb", b"cccc"]
    assert queue.backlog.bytes == 0


def test_what_is_too_old_goes_and_is_counted(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "to")
    queue.put(b"old")
    queue.now += HOUR - 1
    queue.put(b"new")
    queue.now += 2
    assert queue.drain() == [b"new"]
    assert queue.dropped == [("age", 3)]


def test_the_next_process_takes_over_what_a_dead_one_has_left(tmp_path: Path) -> None:
    dead = Queue(tmp_path / "to")
    dead.put(b"one", b"two")
    alive = Queue(tmp_path / "to")
    alive.put(b"mine")
    dead.backlog.release()  # what the kernel does when a process is killed
    following = Queue(tmp_path / "to", now=101.0)
    following.put(b"three")
    assert following.drain() == [b"one", b"two", b"three"]
    assert alive.drain() == [b"mine"]


def test_a_backlog_that_is_closed_with_requests_leaves_them(tmp_path: Path) -> None:
    first = Queue(tmp_path / "to")
    first.put(b"one")
    first.backlog.close()
    assert Queue(tmp_path / "to").drain() == [b"one"]


def test_what_is_taken_over_falls_under_the_limits(tmp_path: Path) -> None:
    first = Queue(tmp_path / "to")
    first.put(b"aaaa", b"bbbb")
    first.backlog.close()
    following = Queue(tmp_path / "to", max_bytes=5)
    assert following.dropped == [("bytes", 4)]
    assert following.drain() == [b"bbbb"]


def test_what_was_meant_for_another_receiver_goes_with_time(tmp_path: Path) -> None:
    other = Queue(tmp_path / "other")
    other.put(b"aaaa")
    other.backlog.close()
    (left,) = (tmp_path / "other").iterdir()
    now = left.stat().st_mtime
    assert Queue(tmp_path / "to", now=now + 60).drain() == []
    assert left.exists()
    Queue(tmp_path / "to", now=now + HOUR + 60)
    assert not left.exists()


def test_without_a_directory_requests_wait_in_memory() -> None:
    queue = Queue(None)
    queue.put(b"one", b"two")
    assert queue.drain() == [b"one", b"two"]


def test_requests_in_memory_have_their_own_limit() -> None:
    queue = Queue(None, max_bytes=1 << 30)
    queue.put(b"a" * (module.MEMORY_BYTES - 1), b"bb")
    assert queue.dropped == [("bytes", module.MEMORY_BYTES - 1)]
    assert queue.drain() == [b"bb"]


def test_a_directory_that_cannot_be_made_is_one_line_and_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    queue = Queue(tmp_path / "file" / "to")
    queue.put(b"one")
    assert queue.drain() == [b"one"]
    assert len(queue.problems) == 1 and "wait in memory" in queue.problems[0]


def test_a_disk_that_fills_up_loses_nothing_that_is_in_memory(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "to")
    queue.put(b"one")
    for path in (tmp_path / "to").iterdir():
        path.rename(tmp_path / "gone")
    queue.put(b"two")
    assert queue.drain() == [b"two"]
    assert queue.dropped == [("unreadable", 3)]
    assert "No such file" in queue.problems[0]


def test_links_and_foreign_files_are_not_taken_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "to" / "1-dead"
    folder.mkdir(parents=True)
    os.symlink(secret, folder / "000000000100000-000001-1.snappy")
    (folder / "notes").write_text("")
    assert Queue(tmp_path / "to").drain() == []
    assert secret.read_text() == "secret"


def test_times_never_go_back_but_after_a_large_step_of_the_clock() -> None:
    times = Timeline(None, {"instance": "a"})
    assert times.next(1_000_000) == 1_000_000
    assert times.next(999_000) is None
    assert times.next(999_000, needed=True) == 1_000_001
    assert times.next(1_000_002) == 1_000_002
    assert times.next(500_000) == 500_000


def test_the_next_process_of_the_same_labels_begins_after_the_end(tmp_path: Path) -> None:
    first = Timeline(tmp_path, {"instance": "a"})
    assert first.next(1000) == 1000
    first.end(31_000)
    again = Timeline(tmp_path, {"instance": "a"})
    assert again.next(2000) is None
    assert again.next(2000, needed=True) == 31_001
    assert Timeline(tmp_path, {"instance": "b"}).next(2000) == 2000
