"""Replaying: lines from any kind of file, recorded time, files that grow."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.replay.lines import LONGEST_LINE, Damaged, LineSplitter, read_lines
from esper_exporter.replay.pace import Pace, Recorded, event_time
from esper_exporter.replay.session import Outcome, Plan, replay
from esper_exporter.replay.stop import Stop, stop_on_signals
from support.recordings import telemetry, telemetry_lines


class Clock:
    """A clock that only waiting advances."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stopping = False

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        if readable is None:
            assert seconds is not None
            self.now += seconds
        return self.stopping


class Seen:
    """Remembers what a replay reports."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lines = 0

    def on_bytes(self, count: int) -> None:
        self.bytes += count

    def on_line(self) -> None:
        self.lines += 1


@pytest.fixture
def stop() -> Iterator[Stop]:
    with closing(Stop()) as made:
        yield made


def ignore(count: int) -> None:
    """Ignores how many bytes were read."""


def at(seconds: float, **more: object) -> bytes:
    """An event line recorded ``seconds`` after midnight."""
    minutes, rest = divmod(seconds, 60)
    stamp = f"2026-06-01T00:{int(minutes):02d}:{rest:09.6f}+00:00"
    return json.dumps({"event_type": "EPOCH_COMPLETED", "timestamp": stamp, **more}).encode()


# -- lines --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"a\nb"])))
def test_lines_do_not_depend_on_how_the_stream_is_cut(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    splitter = LineSplitter()
    found = [line for part in parts for line in splitter.feed(part)]
    assert [*found, splitter.take()] == stream.split(b"\n")


def test_a_line_without_end_costs_no_more_memory_than_the_longest_one() -> None:
    splitter = LineSplitter()
    for _ in range(2 * LONGEST_LINE // 2**20):
        assert splitter.feed(b"x" * 2**20) == []
    assert [len(line) for line in splitter.feed(b"\nshort\n")] == [LONGEST_LINE, 5]


def test_a_recording_reads_the_same_compressed_plain_and_in_several_gzip_streams(
    tmp_path: Path, stop: Stop
) -> None:
    lines = list(telemetry_lines("run2b"))
    text = b"\n".join(lines) + b"\n"
    half = text.index(b"\n", len(text) // 2) + 1
    for name, content in {
        "plain.jsonl": text,
        "no-line-end.jsonl": text[:-1],
        "zipped.jsonl.gz": gzip.compress(text),
        "zipped-without-its-suffix.jsonl": gzip.compress(text),
        "appended.jsonl.gz": gzip.compress(text[:half]) + gzip.compress(text[half:]),
        "padded.jsonl.gz": gzip.compress(text) + b"\0" * 512,
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert list(read_lines(str(path), stop, ignore)) == lines, name


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9, 0.99999])
def test_what_a_truncated_gzip_holds_is_read_before_the_damage_is_reported(
    share: float, tmp_path: Path, stop: Stop
) -> None:
    whole = telemetry("run1").read_bytes()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: max(3, int(len(whole) * share))])
    found: list[bytes] = []
    with pytest.raises(Damaged, match="in the middle of its gzip data"):
        read_into(found, str(path), stop)
    assert tuple(found) == telemetry_lines("run1")[: len(found)]
    assert len(found) >= int(7412 * share) - 300


def read_into(found: list[bytes], name: str, stop: Stop) -> None:
    """Read lines into a list that is kept when reading fails."""
    for line in read_lines(name, stop, ignore):
        found.append(line)


def test_lines_up_to_a_flipped_bit_are_read(tmp_path: Path, stop: Stop) -> None:
    lines = [os.urandom(40).hex().encode() for _ in range(4000)]
    first, second = b"\n".join(lines[:2000]) + b"\n", b"\n".join(lines[2000:]) + b"\n"
    path = tmp_path / "flipped.gz"
    path.write_bytes(gzip.compress(first) + b"\x1f\x8b\x08\xff" + gzip.compress(second)[4:])
    found: list[bytes] = []
    with pytest.raises(Damaged, match="damaged"):
        read_into(found, str(path), stop)
    assert found == lines[:2000]


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_an_open_error_is_reported_with_the_system_s_reason(
    name: str, tmp_path: Path, stop: Stop
) -> None:
    with pytest.raises(Damaged, match=r"No such file|directory"):
        list(read_lines(str(tmp_path / name), stop, ignore))


def test_a_pipe_gives_each_line_as_soon_as_it_is_written(tmp_path: Path, stop: Stop) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    lines = read_lines(str(path), stop, ignore)
    writer = threading.Thread(target=lambda: written.append(os.open(path, os.O_WRONLY)))
    written: list[int] = []
    writer.start()
    try:
        first = threading.Thread(target=lambda: os.write(wait_for(written), b"one\ntw"))
        first.start()
        assert next(lines) == b"one"
        os.write(written[0], b"o\n")
        assert next(lines) == b"two"
    finally:
        writer.join(10)
        first.join(10)
        os.close(written[0])
    assert list(lines) == []


def wait_for(written: list[int]) -> int:
    """The descriptor that another thread is about to open."""
    while not written:
        threading.Event().wait(0.01)
    return written[0]


def test_a_request_to_stop_ends_reading_from_a_silent_pipe(tmp_path: Path, stop: Stop) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    timer = threading.Timer(0.1, stop.request)
    timer.start()
    assert list(read_lines(str(path), stop, ignore)) == []
    timer.join()


# -- recorded time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reported", ["2026-06-01T00:00:01+00:00", "2026-06-01T00:00:01", 1780272001]
)
def test_the_time_of_an_event_is_read_as_utc(reported: object) -> None:
    line = json.dumps({"timestamp": reported}).encode()
    assert event_time(line) == 1780272001.0


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"[1]",
        b"{}",
        b'{"timestamp": "yesterday"}',
        b'{"timestamp": NaN}',
        b'{"timestamp": true}',
        b'{"timestamp": {"a": 1}}',
        b'{"timestamp": "0001-01-01T00:00:00+23:59"}',
        b'{"timestamp": 1' + b"0" * 400 + b"}",
        b"\xff\xfe",
    ],
)
def test_a_line_without_a_time_is_due_at_once(line: bytes) -> None:
    clock = Clock()
    pace = Pace(1.0, clock, clock)
    pace.hold(at(0))
    assert pace.hold(line) is False
    assert clock.now <= 1000.0 + 1e-6 or event_time(line) is not None


@pytest.mark.parametrize(("speed", "due"), [(1.0, 90.0), (10.0, 9.0), (0.5, 180.0)])
def test_gaps_last_as_recorded_divided_by_the_speed(speed: float, due: float) -> None:
    clock = Clock()
    pace = Pace(speed, clock, clock)
    for line in (at(0), at(30), at(29), at(90)):
        assert pace.hold(line) is False
    assert clock.now - 1000.0 == pytest.approx(due)


def test_time_spent_between_events_is_not_waited_twice() -> None:
    clock = Clock()
    pace = Pace(1.0, clock, clock)
    pace.hold(at(0))
    clock.now += 8
    pace.hold(at(10))
    assert clock.now - 1000.0 == pytest.approx(10)


def test_a_run_recorded_before_the_one_it_follows_keeps_its_own_time() -> None:
    clock = Clock()
    pace = Pace(1.0, clock, clock)
    for line in (at(100), at(110), at(20), at(25)):
        pace.hold(line)
    assert clock.now - 1000.0 == pytest.approx(15)


@given(st.lists(st.floats(0, 4e9) | st.integers() | st.none(), max_size=20))
def test_no_recorded_time_whatever_stops_a_replay_with_an_error(times: list[object]) -> None:
    clock = Clock()
    pace = Pace(1.0, clock, clock)
    for reported in times:
        assert pace.hold(json.dumps({"timestamp": reported}).encode()) is False


# -- a request to stop --------------------------------------------------------------------------


def test_a_wait_ends_at_once_when_a_stop_was_or_is_requested(stop: Stop) -> None:
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    assert stop.wait(None) is True
    assert stop.wait(1e12) is True
    timer.join()
    stop.request()
    assert stop.stopping


def test_a_wait_without_a_stop_returns_false(stop: Stop) -> None:
    assert stop.wait(0.0) is False
    assert stop.wait(-5.0) is False


def test_a_signal_that_another_thread_receives_ends_the_wait_of_the_main_thread() -> None:
    def receive() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with stop_on_signals() as stop:
        receiver = threading.Timer(0.1, receive)
        receiver.start()
        began = time.monotonic()
        assert stop.wait(20) is True
        assert time.monotonic() - began < 10
        receiver.join()


def test_only_the_first_signal_is_caught_and_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5) is True
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


# -- a whole replay -----------------------------------------------------------------------------


def outcome_of(plan: Plan, stop: Stop) -> tuple[list[Recorded], Outcome]:
    fed: list[Recorded] = []
    seen = Seen()
    outcome = replay(plan, fed.append, stop, seen)
    assert seen.lines == outcome.lines
    return fed, outcome


def test_a_line_that_was_parsed_for_its_time_is_fed_as_its_event(
    tmp_path: Path, stop: Stop
) -> None:
    recorded = tmp_path / "a.jsonl"
    recorded.write_bytes(b'{"timestamp": 1, "n": 1}\n{bad\n[1]\n{"timestamp": 1, "n": 2}\n')
    paced, _ = outcome_of(Plan((str(recorded),), 1000.0), stop)
    events = [{"timestamp": 1, "n": 1}, {"timestamp": 1, "n": 2}]
    assert paced == [events[0], b"{bad", b"[1]", events[1]]
    at_once, _ = outcome_of(Plan((str(recorded),), 0.0), stop)
    assert at_once == recorded.read_bytes().splitlines()


def test_until_counts_bad_and_empty_lines_over_all_files(tmp_path: Path, stop: Stop) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(b"one\n\n{bad\n")
    second.write_bytes(b"two\nthree\n")
    files = (str(first), str(second))
    for until, expected in {
        0: [],
        1: [b"one"],
        2: [b"one"],
        3: [b"one", b"{bad"],
        4: [b"one", b"{bad", b"two"],
        5: [b"one", b"{bad", b"two", b"three"],
    }.items():
        fed, outcome = outcome_of(Plan(files, 0.0, until), stop)
        assert fed == expected
        assert outcome == Outcome(until, (), stopped=False)
    assert outcome_of(Plan(files, 0.0, 99), stop)[1].lines == 5


def test_until_is_reached_without_waiting_for_the_line_after_it(tmp_path: Path, stop: Stop) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"one\ntwo\n")
    fed, outcome = outcome_of(Plan((str(path),), 0.0, 2, follow=True), stop)
    assert (fed, outcome.lines) == ([b"one", b"two"], 2)


def test_a_damaged_file_is_warned_about_once_and_the_next_one_is_replayed(
    tmp_path: Path, stop: Stop, caplog: pytest.LogCaptureFixture
) -> None:
    cut, whole = tmp_path / "cut.gz", tmp_path / "whole.jsonl"
    cut.write_bytes(gzip.compress(os.urandom(20000).hex().encode() + b"\n")[:-200])
    whole.write_bytes(b"one\n")
    fed, outcome = outcome_of(Plan((str(cut), str(whole)), 0.0), stop)
    assert fed == [b"one"]
    assert outcome == Outcome(1, (str(cut),), stopped=False)
    assert [str(cut) in record.getMessage() for record in caplog.records] == [True]


def test_all_bytes_of_a_file_are_reported(stop: Stop) -> None:
    seen = Seen()
    replay(Plan((str(telemetry("run2b")),), 0.0), lambda line: None, stop, seen)
    assert seen.bytes == telemetry("run2b").stat().st_size


def test_a_request_to_stop_ends_the_replay_at_that_line(stop: Stop) -> None:
    fed = 0

    def feed(line: Recorded) -> None:
        nonlocal fed
        fed += 1
        if fed == 10:
            stop.request()

    outcome = replay(Plan((str(telemetry("run1")),), 0.0), feed, stop, Seen())
    assert (fed, outcome.lines, outcome.stopped) == (10, 10, True)
