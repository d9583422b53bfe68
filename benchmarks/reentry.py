"""Emits from unexpected places, and forks at any time: nothing hangs, nothing is lost.

    python -m benchmarks.reentry --tries 10000 --forks 200

Prints one line a way in: what was emitted, what the page counts. A hang ends the process with a
traceback of every thread and exit code 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from esper_exporter import Exporter

FORKING_THREADS = 4
CHILD_SECONDS = 30.0
SIGNAL_SECONDS = 1e-4
_numbers = itertools.count()


def epoch(**more: Any) -> dict[str, Any]:
    """An event that no other equals."""
    number = next(_numbers)
    data = {"env_id": 0, "val_accuracy": 50.0, "val_loss": 1.0, "inner_epoch": number, **more}
    return {"event_type": "TOLARIA_EPOCH_COMPLETED", "event_id": f"e{number}", "data": data}


def counted(exporter: Exporter, name: str) -> float:
    """The sum of a family's samples on the page."""
    page = exporter.render().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    )


class Inner:
    """What is emitted from within: every way of asking the exporter for something."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.emitted = 0

    def __call__(self) -> None:
        self.emitted += 1
        self.exporter.emit(epoch())
        if self.emitted % 7 == 0:
            self.exporter.render()
            self.exporter.snapshot()
            self.exporter.ready()
            self.exporter.summaries()
        if self.emitted % 11 == 0:
            self.exporter.observe_snapshot({"run_id": "inner"}, group_id="snapshots")


@contextmanager
def scraping(exporter: Exporter) -> Iterator[None]:
    """Scrape from another thread meanwhile."""
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            exporter.render()
            done.wait(0.001)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def from_signals(exporter: Exporter, tries: int) -> int:
    """A signal handler emits amid emits of the main thread."""
    inner = Inner(exporter)
    outer = 0

    def handle(_number: int, _frame: object) -> None:
        inner()
        signal.setitimer(signal.ITIMER_REAL, SIGNAL_SECONDS)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, SIGNAL_SECONDS)
    try:
        while inner.emitted < tries:
            exporter.emit(epoch())
            outer += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    return outer + inner.emitted


def from_finalisers(exporter: Exporter, tries: int) -> int:
    """A finaliser emits while objects are collected, on any thread."""
    inner = Inner(exporter)

    class Garbage:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            inner()

    thresholds = gc.get_threshold()
    gc.set_threshold(20, 5, 5)
    made = 0
    try:
        while inner.emitted < tries:
            Garbage()
            exporter.emit(epoch())
            made += 1
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    return made + inner.emitted


def from_log_handlers(exporter: Exporter, tries: int) -> int:
    """A log handler emits for every line that the exporter logs."""
    inner = Inner(exporter)
    handler = logging.Handler()
    handler.emit = lambda _record: inner()  # type: ignore[method-assign]
    logger = logging.getLogger("esper_exporter")
    logger.addHandler(handler)
    outer = 0
    try:
        # A kind of warning is logged once, so each event is refused in its own way.
        for number in range(min(tries, 250)):
            exporter.emit({"event_type": f"UNKNOWN_{number}", "data": {}})
            outer += 1
    finally:
        logger.removeHandler(handler)
    return outer + inner.emitted


class Payload:
    """A payload with an attribute that emits."""

    def __init__(self, inner: Inner) -> None:
        self.__dict__.update(epoch()["data"])
        self._inner = inner

    @property
    def train_loss(self) -> float:
        self._inner()
        return 1.0


def from_properties(exporter: Exporter, tries: int) -> int:
    """An attribute of an event emits while the event is read."""
    inner = Inner(exporter)
    for _ in range(tries):
        exporter.emit({**epoch(), "data": Payload(inner)})
    return tries + inner.emitted


class Emitting(Collector):
    """A collector that emits while a page is rendered, and asks for another page."""

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self.silent = False

    def collect(self) -> list[Metric]:
        if not self.silent:
            self._inner()
        return []


def from_collectors(exporter: Exporter, tries: int) -> int:
    """An added collector emits while it is asked for its families."""
    inner = Inner(exporter)
    collector = Emitting(inner)
    exporter.add_collector(collector, "emitting", seconds=30.0)
    while inner.emitted < tries:
        exporter.render()
    collector.silent = True  # what is read from the page afterwards renders once more
    exporter.render()
    return inner.emitted


WAYS: dict[str, Callable[[Exporter, int], int]] = {
    "signal": from_signals,
    "gc": from_finalisers,
    "logging": from_log_handlers,
    "property": from_properties,
    "collector": from_collectors,
}


def forks(exporter: Exporter, count: int) -> tuple[int, int]:
    """Forks from four threads that emit and render: how many children, and how many hung."""
    hung: list[int] = []
    begun = itertools.count()

    def work() -> None:
        while next(begun) < count:
            for _ in range(5):
                exporter.emit(epoch())
            exporter.render()
            child = os.fork()
            if child == 0:
                try:
                    exporter.render()
                    exporter.snapshot()
                    exporter.ready()
                    exporter.start()
                    exporter.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            if not _ended(child):
                hung.append(child)

    threads = [threading.Thread(target=work) for _ in range(FORKING_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count, len(hung)


def _ended(child: int) -> bool:
    deadline = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.reentry", description=__doc__)
    parser.add_argument("--tries", type=int, default=10_000, help="emits from within, a way")
    parser.add_argument("--forks", type=int, default=200, help="children, from four threads")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="a way that takes longer hangs"
    )
    options = parser.parse_args()
    logging.getLogger("esper_exporter").propagate = False
    lost = 0
    for name, way in WAYS.items():
        faulthandler.dump_traceback_later(options.seconds, exit=True)
        emitted = found = left = 0
        left = options.tries
        while left > 0:
            exporter = Exporter(port=0, state_dir="off")
            step = min(left, 250) if way is from_log_handlers else left
            with scraping(exporter):
                emitted += way(exporter, step)
            found += int(counted(exporter, "esper_exporter_events_total"))
            left -= step
        lost += emitted != found
        print(f"{name}: emitted {emitted}, counted {found}", flush=True)
    if options.forks:
        faulthandler.dump_traceback_later(options.seconds, exit=True)
        exporter = Exporter(port=0, state_dir="off")
        exporter.start()
        children, hung = forks(exporter, options.forks)
        exporter.close()
        lost += hung
        print(f"forks: {children} children, {hung} hung or failed", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
