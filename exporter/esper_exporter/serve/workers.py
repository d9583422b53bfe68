"""A few daemon threads for work that must not hold up the event loop.

Not ``concurrent.futures``: the interpreter joins its threads at exit, so a user collector that
hangs would keep a finished training process alive.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from esper_exporter.daemon_thread import start_daemon

T = TypeVar("T")


class Workers:
    """Runs work on at most ``limit`` threads, started on demand. Call all methods but ``close``
    on the event loop's thread."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._threads: list[threading.Thread] = []
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``work`` on a thread; the future belongs to the running loop.

        Cancelling the future only drops the work's result; the work continues.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._unfinished -= 1
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as raised:  # the caller handles the error
                error = raised
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop is closed: nothing awaits the result
                return

        self._unfinished += 1
        self._queue.put(run)
        if self._unfinished > len(self._threads) < self._limit:
            self._threads.append(start_daemon(self._work, f"{self._name}-{len(self._threads)}"))
        return future

    def _work(self) -> None:
        while (run := self._queue.get()) is not None:
            run()

    def close(self, seconds: float) -> None:
        """Stop the threads, waiting up to ``seconds`` for busy ones; leave one that hangs."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()
