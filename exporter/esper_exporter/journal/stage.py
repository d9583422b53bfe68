"""A stage of a pipeline: one thread that runs submitted calls in order, with a short queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_QUEUED = 2


class Stage:
    """Runs calls on a thread, one after the other; the caller waits while too many are queued."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._pending: deque[Future[None]] = deque()

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queue a call. Raises what an earlier one raised."""
        self._pending.append(self._pool.submit(call, *arguments))
        while len(self._pending) > _QUEUED:
            self._pending.popleft().result()

    def close(self) -> None:
        """Wait for the rest and end the thread. Raises what a call raised."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
