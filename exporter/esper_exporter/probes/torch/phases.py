"""Times of the parts of a training step: CUDA events on a GPU, a clock on a CPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from esper_exporter.contract.vocabulary import PHASES

MAX_TIMES = 2048
"""The most times kept of one phase between two reports."""


class Phases:
    """Times of each phase in milliseconds, until `take`."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._times: dict[str, deque[float]] = {phase: deque(maxlen=MAX_TIMES) for phase in PHASES}
        self._running: deque[tuple[str, Any, Any]] = deque(maxlen=MAX_TIMES)

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Time the block as one of `PHASES`; other names are ignored."""
        if self._cuda and phase != "epoch":
            begin, end = self._event(), self._event()
            begin.record()
            try:
                yield
            finally:
                end.record()
                self._running.append((phase, begin, end))
            return
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, (time.perf_counter() - begun) * 1000.0)

    @staticmethod
    def _event() -> Any:
        return torch.cuda.Event(enable_timing=True)

    def add(self, phase: str, milliseconds: float) -> None:
        """Record one time."""
        times = self._times.get(phase)
        if times is not None:
            times.append(milliseconds)

    def take(self) -> dict[str, tuple[float, ...]]:
        """The times known by now and not taken yet. Waits for nothing."""
        while self._running and self._running[0][2].query():
            phase, begin, end = self._running.popleft()
            self.add(phase, begin.elapsed_time(end))
        taken = {phase: tuple(times) for phase, times in self._times.items() if times}
        for times in self._times.values():
            times.clear()
        return taken
