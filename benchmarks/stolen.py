"""Time that a scrape steals from a training loop in the same process.

A loop of equal steps runs in the main thread; scrapes run in another one. The steps that a scrape
touched are compared with the median of their neighbours; the sum of the excess is what was stolen.
Whole-run means are too noisy for this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

from prometheus_client import generate_latest

from benchmarks.content import OurPage, TheirPage
from benchmarks.measure import Result

STEP_ROUNDS = 4000
NEIGHBOURS = 20


def _step() -> int:
    total = 0
    for number in range(STEP_ROUNDS):
        total += number * number % 7
    return total


def stolen_by(scrape: Callable[[], object], times: int) -> list[float]:
    """Seconds that each of ``times`` scrapes stole."""
    wanted, done, ending = threading.Event(), threading.Event(), threading.Event()
    spans: list[tuple[float, float]] = []

    def scraper() -> None:
        while True:
            wanted.wait()
            wanted.clear()
            if ending.is_set():
                return
            begun = time.perf_counter()
            scrape()
            spans.append((begun, time.perf_counter()))
            done.set()

    thread = threading.Thread(target=scraper, daemon=True)
    thread.start()
    stolen = []
    for _ in range(times):
        marks = [time.perf_counter()]
        done.clear()
        spans.clear()
        for _ in range(NEIGHBOURS):
            _step()
            marks.append(time.perf_counter())
        wanted.set()
        while not done.is_set():
            _step()
            marks.append(time.perf_counter())
        for _ in range(NEIGHBOURS):
            _step()
            marks.append(time.perf_counter())
        steps = list(pairwise(marks))
        begun, ended = spans[0]
        touched = [b - a for a, b in steps if b > begun and a < ended]
        calm = median(b - a for a, b in steps if b <= begun or a >= ended)
        stolen.append(max(0.0, sum(length - calm for length in touched)))
    ending.set()
    wanted.set()
    thread.join()
    return stolen


def run(rounds: int) -> list[Result]:
    ours, theirs = OurPage(), TheirPage()
    ours.render()
    pairs = []
    for _ in range(rounds):
        one = median(stolen_by(ours.render, 5))
        other = median(stolen_by(lambda: generate_latest(theirs.registry), 1))
        pairs.append((one, other))
    return [
        Result(
            "stolen from training a scrape",
            median(one for one, _ in pairs),
            median(other for _, other in pairs),
            median(other / max(one, 1e-9) for one, other in pairs),
            "s",
            25,
            note="16,000 gauges; excess of the touched steps over their neighbours",
        )
    ]
