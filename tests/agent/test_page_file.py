"""A shared page survives its writer, and a reader never gets half of one."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from esper_exporter.agent import page_file
from esper_exporter.agent.page_file import (
    HEADER_BYTES,
    TRIES,
    PageReader,
    PageRefused,
    PageWriter,
    Published,
    Slot,
)

ME = frozenset({os.getuid()})


def _published(path: Path, values: np.ndarray, times: int = 1) -> PageWriter:
    writer = PageWriter(path)
    for number in range(times):
        writer.publish(values, float(number), 1, 10)
    return writer


def test_a_reader_gets_the_newest_publication(tmp_path: Path) -> None:
    path = tmp_path / "page"
    values = np.arange(100.0)
    writer = _published(path, values, times=3)
    writer.publish(values * 2, 42.0, 7, 99)
    found = PageReader(path, ME).read()
    assert found is not None
    assert (found.at, found.layout_generation, found.layout_bytes) == (42.0, 7, 99)
    assert found.values.tolist() == (values * 2).tolist()


def test_values_keep_their_bits(tmp_path: Path) -> None:
    odd = np.array([np.nan, np.inf, -0.0, 5e-324], np.float64)
    odd = np.append(odd, np.frombuffer(struct.pack("<Q", 0x7FF8_0000_0E59_E400), np.float64))
    _published(tmp_path / "page", odd)
    found = PageReader(tmp_path / "page", ME).read()
    assert found is not None and found.values.tobytes() == odd.tobytes()


def test_a_page_that_outgrows_its_file_moves_to_a_larger_one(tmp_path: Path) -> None:
    path = tmp_path / "page"
    writer = _published(path, np.ones(10))
    reader = PageReader(path, ME)
    assert reader.read() is not None
    writer.publish(np.full(50_000, 3.0), 1.0, 1, 10)
    found = reader.read()
    assert found is not None and len(found.values) == 50_000
    assert sorted(each.name for each in tmp_path.iterdir()) == ["page"]


@pytest.mark.parametrize("broken", ["half a buffer", "a slot"])
def test_the_page_before_is_read_while_the_next_is_half_written(
    tmp_path: Path, broken: str
) -> None:
    path = tmp_path / "page"
    _published(path, np.full(1000, 1.0), times=2).publish(np.full(1000, 2.0), 9.0, 1, 10)
    newest = 3 & 1
    capacity = struct.unpack_from("<I", path.read_bytes(), 12)[0]
    with path.open("r+b") as file:
        # As a writer that died leaves it: the buffer that the newest slot names is overwritten.
        file.seek(HEADER_BYTES + newest * capacity * 8 if broken == "half a buffer" else 128)
        file.write(b"\xff" * 64)
    reader = PageReader(path, ME)
    found = reader.read()
    assert found is not None and found.values[0] == 1.0 and found.at == 1.0


def test_a_page_without_a_valid_buffer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page"
    _published(path, np.full(1000, 1.0), times=2)
    capacity = struct.unpack_from("<I", path.read_bytes(), 12)[0]
    with path.open("r+b") as file:
        for which in (0, 1):
            file.seek(HEADER_BYTES + which * capacity * 8)
            file.write(b"\xff" * 64)
    with pytest.raises(PageRefused) as refused:
        PageReader(path, ME).read()
    assert refused.value.reason == "corrupt"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: os.truncate(path, 5), "truncated"),
        (lambda path: os.truncate(path, HEADER_BYTES + 80), "truncated"),
        (lambda path: path.write_bytes(b"x" * 8192), "corrupt"),
        (lambda path: path.write_bytes(b"ESPRPAGE" + struct.pack("<II", 99, 10)), "version"),
        (lambda path: os.truncate(path, 1 << 40), "too_large"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not_a_file"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), "unreadable"),
    ],
    ids=["5 bytes", "no buffer", "noise", "version", "1 TB", "fifo", "symlink"],
)
def test_a_damaged_page_is_refused_with_a_reason(tmp_path: Path, damage, reason: str) -> None:
    path = tmp_path / "page"
    _published(path, np.full(1000, 1.0), times=2)
    damage(path)
    with pytest.raises(PageRefused) as refused:
        PageReader(path, ME).read()
    assert refused.value.reason == reason


def test_a_page_of_another_user_is_refused(tmp_path: Path) -> None:
    _published(tmp_path / "page", np.ones(3))
    with pytest.raises(PageRefused) as refused:
        PageReader(tmp_path / "page", frozenset({os.getuid() + 1})).read()
    assert refused.value.reason == "owner"


def test_a_full_file_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    program = """
import resource, sys, numpy as np
from pathlib import Path
from esper_exporter.agent.page_file import PageWriter
writer = PageWriter(Path(sys.argv[1]))
writer.publish(np.ones(10), 1.0, 1, 1)
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    writer.publish(np.ones(100_000), 2.0, 1, 1)
except OSError as problem:
    print("error", problem.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "page")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["error"]), done.stderr
    found = PageReader(tmp_path / "page", ME).read()
    assert found is not None and len(found.values) == 10
    assert sorted(each.name for each in tmp_path.iterdir()) == ["page"]


def test_no_reading_is_torn_under_a_writer_at_full_speed(tmp_path: Path) -> None:
    """Each publication holds one number in all cells: two numbers in one reading are a tear."""
    path = tmp_path / "page"
    program = """
import sys, numpy as np
from pathlib import Path
from esper_exporter.agent.page_file import PageWriter
writer = PageWriter(Path(sys.argv[1]))
number = 0
print("ready", flush=True)
while True:
    number += 1
    writer.publish(np.full(4000, float(number)), 1.0, 1, 1)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        reader = PageReader(path, ME)
        torn, before = 0, 0.0
        until = time.monotonic() + 20
        for _ in range(20_000):
            if time.monotonic() > until:
                break
            try:
                found = reader.read()
            except FileNotFoundError:
                continue
            except PageRefused as refused:
                # Without a pause between publications, on a busy machine: refused, and not torn.
                assert refused.reason == "busy"
                continue
            if found is None:
                continue
            torn += int(found.values.min() != found.values.max())
            assert found.values[0] >= before, "an older page after a newer one"
            before = found.values[0]
        assert torn == 0 and before > 0
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    last = PageReader(path, ME).read()
    assert last is not None and last.values.min() == last.values.max() >= before


class _Overtaken(PageReader):
    """A reader whose writer publishes twice between the slots and the buffers of each reading."""

    def __init__(self, path: Path, writer: PageWriter, times: int) -> None:
        super().__init__(path, ME)
        self._writer = writer
        self._left = times
        self._number = 1.0

    def _read(self, slots: list[Slot]) -> Published | None:
        if self._left:
            self._left -= 1
            for _ in range(2):
                self._number += 1
                self._writer.publish(np.full(4000, self._number), 1.0, 1, 1)
        return super()._read(slots)


def test_a_page_whose_writer_overtakes_many_readings_is_not_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "page"
    writer = PageWriter(path)
    writer.publish(np.full(4000, 1.0), 1.0, 1, 1)
    reader = _Overtaken(path, writer, times=5 * TRIES)
    found = reader.read()
    assert found is not None and found.values.min() == found.values.max() == 1.0 + 10 * TRIES
    assert reader.torn == 5 * TRIES


def test_a_writer_that_never_leaves_time_to_read_does_not_hold_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page"
    writer = PageWriter(path)
    writer.publish(np.full(4000, 1.0), 1.0, 1, 1)
    monkeypatch.setattr(page_file, "READ_SECONDS", 0.05)
    with pytest.raises(PageRefused) as refused:
        _Overtaken(path, writer, times=10**9).read()
    assert refused.value.reason == "busy"


def test_two_threads_reading_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "page"
    _published(path, np.full(4000, 5.0), times=2)
    wrong: list[object] = []

    def read() -> None:
        reader = PageReader(path, ME)
        for _ in range(500):
            found = reader.read()
            if found is None or found.values.sum() != 20_000.0:
                wrong.append(found)
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
