"""Measure the training's time by phase: wall time, and this thread's CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Profile:
    """Sums times until `take`. An inner phase also counts for the outer one."""

    def __init__(self) -> None:
        self._wall: dict[str, float] = {}
        self._cpu: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Time a block."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._wall[phase] = self._wall.get(phase, 0.0) + time.perf_counter() - wall
            self._cpu[phase] = self._cpu.get(phase, 0.0) + time.thread_time() - cpu

    def take(self) -> dict[str, dict[str, float]]:
        """The times since the last call, in the contract's terms: milliseconds, a share."""
        taken = {
            phase: {
                "wall_ms": 1000.0 * wall,
                "python_cpu_ms": 1000.0 * self._cpu[phase],
                "python_cpu_ratio": self._cpu[phase] / wall,
            }
            for phase, wall in self._wall.items()
        }
        self._wall, self._cpu = {}, {}
        return taken
