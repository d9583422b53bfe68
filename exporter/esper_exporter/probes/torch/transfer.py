"""From the device to the host: all numbers of an update in one copy that is not waited for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Arrays = list[np.ndarray[Any, np.dtype[np.float64]]]
Done = Callable[[Arrays], None]


class Arrival(Protocol):
    """Tells when a copy has arrived: a CUDA event, or a fake of one."""

    def query(self) -> bool:
        """Whether it has, without waiting."""

    def synchronize(self) -> None:
        """Wait until it has."""


@dataclass(frozen=True, slots=True)
class _Pending:
    host: Tensor
    sizes: tuple[int, ...]
    arrival: Arrival
    done: Done


class Transfer:
    """Hands over one update's vectors. On CUDA when the copy has arrived, which is asked for at the
    next step, or waited for by ``flush``; at once on the CPU, and on any other device, whose copies
    are waited for. ``flush`` may be called on any thread; ``poll`` never waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pending: deque[_Pending] = deque()
        self._delivering = threading.RLock()

    @property
    def at_once(self) -> bool:
        """Whether the host can read the values without waiting for a device."""
        return bool(self.device.type != "cuda")

    def home(self, tensor: Tensor) -> Tensor:
        """The tensor where it is measured: on the CPU for devices that are neither CPU nor CUDA,
        since some know no float64."""
        found = tensor.detach() if tensor.requires_grad else tensor
        return found if found.is_cpu or found.is_cuda else found.cpu()

    def send(self, pieces: Sequence[Tensor], done: Done) -> None:
        """Start the copy of ``pieces``; ``done`` gets them as float64 arrays, in this order."""
        sizes = tuple(piece.numel() for piece in pieces)
        if not pieces:
            done([])
            return
        flat = torch.cat([self.home(piece).reshape(-1).to(torch.float64) for piece in pieces])
        if self.at_once:
            done(_split(flat, sizes))
            return
        host, arrival = self._copy(flat)
        self._pending.append(_Pending(host, sizes, arrival, done))

    def _copy(self, flat: Tensor) -> tuple[Tensor, Arrival]:
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        host.copy_(flat, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record(torch.cuda.current_stream(self.device))
        return host, arrival

    def poll(self) -> None:
        """Hand over what has arrived; nothing is waited for."""
        if not self._pending or not self._delivering.acquire(blocking=False):
            return
        try:
            while self._pending and self._pending[0].arrival.query():
                self._deliver()
        finally:
            self._delivering.release()

    def flush(self) -> None:
        """Wait for all pending copies, and deliver them."""
        if not self._pending:
            return
        with self._delivering:
            while self._pending:
                self._pending[0].arrival.synchronize()
                self._deliver()

    def _deliver(self) -> None:
        pending = self._pending.popleft()
        pending.done(_split(pending.host, pending.sizes))


def _split(flat: Tensor, sizes: Sequence[int]) -> Arrays:
    values = flat.numpy()
    return np.split(values, np.cumsum(sizes)[:-1])
