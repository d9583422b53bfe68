"""`make soak`: what clients that behave badly cost the training, and a scraper that behaves.

A separate process serves a page of 16,000 gauges beside a loop of equal training steps and says
how long these take, how many threads and how much memory it has. Meanwhile this process misbehaves
in one way after another, only on the loopback and for a bounded time, and scrapes once a second as
Prometheus would. Steps are compared with those of the quiet seconds between, of the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple

import psutil

from benchmarks.scrape import _Source as PageOf16000
from benchmarks.stolen import _step
from esper_exporter.serve.server import MetricsServer

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"


class Told(NamedTuple):
    """One answer of the trainer: its steps since the last one, its threads and its memory."""

    steps: int
    seconds: float
    threads: int
    rss: int


def train(pipe: Connection) -> None:
    """The trainer: steps, and on another thread an answer when it is asked.

    The loop itself makes no system call: one that returns at once, made over and over, gives the
    interpreter's lock up and takes it again before any other thread has woken up, and so keeps
    every other thread from running at all.
    """
    server = MetricsServer(PageOf16000(), host="127.0.0.1", port=0, strict=True)
    server.start()
    pipe.send(server.port)
    over = False
    steps = 0

    def answer() -> None:
        nonlocal over
        process = psutil.Process()
        before, since = steps, time.perf_counter()
        while pipe.recv() is not None:
            now = time.perf_counter()
            memory = process.memory_info().rss
            pipe.send(Told(steps - before, now - since, threading.active_count() - 1, memory))
            before, since = steps, time.perf_counter()
        over = True

    threading.Thread(target=answer, daemon=True).start()
    while not over:
        _step()
        steps += 1
    server.close()


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


@contextmanager
def _held(port: int, count: int, sent: bytes) -> Iterator[None]:
    """Connections that send something and then nothing, and read nothing."""
    with ExitStack() as held:
        for _ in range(count):
            with suppress(OSError):
                held.enter_context(_connect(port)).sendall(sent)
        yield


@contextmanager
def _idle_and_greedy(port: int, idle: int, greedy: int) -> Iterator[None]:
    """Connections that say nothing, and others that ask for pages and read none, all at once."""
    with _held(port, idle, b""), _held(port, greedy, GET * 4):
        yield


@contextmanager
def _repeated(work: Callable[[], object], threads: int, pause: float) -> Iterator[None]:
    """Threads that do something over and over."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(pause):
            with suppress(OSError):
                work()

    running = [threading.Thread(target=repeat, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join(15)


@contextmanager
def _drip(port: int, count: int) -> Iterator[None]:
    """Connections that send their headers at a byte a second."""
    with ExitStack() as held:
        drips = [held.enter_context(_connect(port)) for _ in range(count)]
        places = iter(range(len(GET)))

        def send() -> None:
            place = next(places, 0)
            for sock in drips:
                with suppress(OSError):
                    sock.sendall(GET[place : place + 1])

        with _repeated(send, 1, 1.0):
            yield


def _scrape(port: int) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept-Encoding": "gzip"}
    )
    begun = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
    return time.perf_counter() - begun


def run(seconds: int, only: str = "") -> list[tuple[str, str, str, str, str]]:
    """A row for each way to misbehave."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    trainer = spawn.Process(target=train, args=(there,), daemon=True)
    trainer.start()
    port: int = here.recv()

    def ask() -> Told:
        here.send("how are you?")
        reported: Told = here.recv()
        return reported

    ways: tuple[tuple[str, Callable[[], ExitStack | object], int], ...] = (
        ("none", lambda: _held(port, 0, b""), seconds),
        ("500 idle connections", lambda: _held(port, 500, b""), seconds),
        ("100 headers at a byte a second", lambda: _drip(port, 100), seconds),
        ("100 readers that read nothing", lambda: _held(port, 100, GET * 4), seconds),
        ("1,000 idle connections, 300 readers that read nothing",
         lambda: _idle_and_greedy(port, 1000, 300), seconds),
        ("200 scrapes at once, over and over",
         lambda: _repeated(lambda: _scrape(port), 200, 0.0), seconds),
        ("10 scrapes a second for a minute",
         lambda: _repeated(lambda: _scrape(port), 10, 1.0), 6 * seconds),
    )  # fmt: skip
    rows = []
    try:
        for name, way, length in (way for way in ways if only in way[0]):
            quiet = _steps_a_second(ask, 3)
            with way():  # type: ignore[attr-defined]
                ask()
                scrapes = []
                for _ in range(length):
                    scrapes.append(_scrape(port))
                    time.sleep(1.0)
                reported = ask()
            share = 1 - reported.steps / reported.seconds / quiet
            rows.append(
                (
                    name,
                    f"{1000 * median(scrapes):.0f} / {1000 * max(scrapes):.0f} ms",
                    f"{100 * max(0.0, share):.1f} %",
                    str(reported.threads),
                    f"{reported.rss / 1e6:.0f} MB",
                )
            )
            print("·", *rows[-1], flush=True)
    finally:
        here.send(None)
        trainer.join(20)
    return rows


def _steps_a_second(ask: Callable[[], Told], seconds: float) -> float:
    ask()
    time.sleep(seconds)
    reported = ask()
    return reported.steps / reported.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="for each way (default 10)")
    parser.add_argument("--only", default="", help="ways whose name holds this text")
    options = parser.parse_args()
    rows = run(options.seconds, options.only)
    print("\n| what clients do | a scrape, median / longest | training slowed | threads | memory |")
    print("|---|---|---|---|---|")
    for row in rows:
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
