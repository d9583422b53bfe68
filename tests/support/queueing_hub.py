"""A hub with the behaviour of esper's: events queue, worker threads deliver them, full queues drop.

Written for the tests; it shares no line with the trainer.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any


class _Worker:
    """One backend's queue and thread."""

    def __init__(self, backend: Any, size: int, delay: float) -> None:
        self.backend = backend
        self.events: queue.Queue[Any] = queue.Queue(size)
        self.dropped = self.processed = 0
        self._delay = delay
        threading.Thread(target=self._deliver, daemon=True).start()

    def _deliver(self) -> None:
        while True:
            event = self.events.get()
            time.sleep(self._delay)
            try:
                self.backend.emit(event)
                self.processed += 1
            except Exception:
                self.dropped += 1
            self.events.task_done()


class QueueingHub:
    """``delay`` is how many seconds each delivery waits, for a machine that is busy."""

    def __init__(self, backend_queue_size: int = 100, delay: float = 0.0) -> None:
        self._size = backend_queue_size
        self._delay = delay
        self._workers: list[_Worker] = []
        self._closed = False
        self.flushes: list[float | None] = []

    def add_backend(self, backend: Any) -> None:
        backend.start()
        self._workers.append(_Worker(backend, self._size, self._delay))

    def emit(self, event: Any) -> None:
        for worker in self._workers:
            try:
                worker.events.put_nowait(event)
            except queue.Full:
                worker.dropped += 1

    def flush(self, timeout: float | None = None) -> bool:
        self.flushes.append(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            with worker.events.all_tasks_done:
                while worker.events.unfinished_tasks:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    worker.events.all_tasks_done.wait(left)
        return True

    def get_health_snapshot(self) -> dict[str, Any]:
        stats = {
            type(worker.backend).__name__: {
                "processed_events": worker.processed,
                "dropped_events": worker.dropped,
                "avg_processing_time_ms": 0.0,
                "total_processing_time_s": 0.0,
            }
            for worker in self._workers
        }
        dropped = sum(worker.dropped for worker in self._workers)
        return {
            "status": "degraded" if dropped else "healthy",
            "dropped_events": dropped,
            "hub_dropped_events": 0,
            "backend_dropped_events": dropped,
            "backend_stats": stats,
        }

    def close(self) -> None:
        if not self._closed:
            self.flush(10.0)
            self._closed = True
            for worker in self._workers:
                worker.backend.close()
