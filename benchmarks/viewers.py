"""What ten viewers of the browser page cost a training of 64 environments of nine slots.

A loop in pure Python, the worst case for the interpreter lock, emits a policy update twice a
second. Stretches with and without viewers take turns; the viewers are a process of their own
(`benchmarks.viewers_client`). Two figures come out: the CPU time of all threads but the training's,
which a busy machine hardly changes, and how much slower the loop went, which it does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import Result
from esper_exporter import Exporter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from page.worlds import HEADS, heads_update, wide

VIEWERS = 10
STRETCH_SECONDS = 3.0
EMIT_SECONDS = 0.5
SHARE = 0.01
POLL_SECONDS = 0.001


@dataclass(frozen=True)
class Stretch:
    """A stretch of training: steps a second, and CPU seconds of the other threads a second."""

    pace: float
    others: float


class _Viewers:
    """Ten viewers that look or do not."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "benchmarks.viewers_client", str(port), str(VIEWERS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def look(self, on: bool) -> int:
        """Begin or end looking; the number of answers so far."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("on\n" if on else "off\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class _Training:
    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._time = 60.0

    def stretch(self) -> Stretch:
        steps = 0
        begun, process, own = time.perf_counter(), time.process_time(), time.thread_time()
        due = begun
        while (now := time.perf_counter()) < begun + STRETCH_SECONDS:
            if now >= due:
                due += EMIT_SECONDS
                self._time += 1.0
                heads = {head: {"entropy": 0.5, "grad_norm": 0.5} for head in HEADS}
                self._exporter.emit(heads_update(self._time, **heads))
            total = 0
            for number in range(2000):
                total += number * number % 7
            steps += 1
        wall = time.perf_counter() - begun
        others = (time.process_time() - process) - (time.thread_time() - own)
        return Stretch(steps / wall, others / wall)


def _poll(exporter: Exporter) -> float:
    """The least CPU time of one answer and its compression."""
    api = exporter.page
    least = float("inf")
    for _ in range(200):
        api._answers.clear()
        begun = time.thread_time()
        _, body = api.state("", None, "")
        assert body is not None
        api.compressed(body)
        least = min(least, time.thread_time() - begun)
    return least


def run(rounds: int) -> list[Result]:
    exporter = wide()
    poll = _poll(exporter)
    with exporter:
        assert exporter.port is not None
        viewers = _Viewers(exporter.port)
        training = _Training(exporter)
        pairs = []
        try:
            for number in range(rounds):
                found: dict[bool, Stretch] = {}
                for on in (number % 2 == 0, number % 2 == 1):
                    viewers.look(on)
                    time.sleep(1.5 if on else 0.2)  # until they have the page, or ask no more
                    found[on] = training.stretch()
                pairs.append(found)
            answers = viewers.look(False)
        finally:
            viewers.close()
    return [
        Result(
            "a poll of the browser page",
            poll,
            None,
            None,
            "s",
            POLL_SECONDS,
            more=False,
            note="64 environments of 9 slots, built and compressed; CPU time, least of 200",
        ),
        Result(
            "ten viewers, CPU time a second",
            median(pair[True].others - pair[False].others for pair in pairs),
            None,
            None,
            "s",
            SHARE,
            more=False,
            note=f"all threads but the training's, paired; {answers} answers",
        ),
        Result(
            "ten viewers, a training loop's loss a second",
            median(1 - pair[True].pace / pair[False].pace for pair in pairs),
            None,
            None,
            "s",
            SHARE,
            more=False,
            note="steps a second with and without, paired; noisy on a busy machine",
        ),
    ]
