"""RankClock: times each rank's own part of a training step, before it waits for the others."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

    from esper_exporter.exporter import Exporter


class RankClock:
    """Reports the steps of one rank of a data-parallel training to its exporter.

    A step lasts from the end of one ``optimizer.step()`` to the moment at which the last gradient
    of ``model`` is there on this rank, after several backward passes where gradients accumulate:
    DistributedDataParallel waits for the other ranks after that. Only host time is read; nothing
    waits for a device, so on a GPU the durations are those of the queueing thread.

    ``model`` is the module, wrapped or not, ``optimizer`` a torch optimizer. ``first_step`` is the
    index of the first step (of a resumed training, say). `check` takes values that are the same on
    every rank after the all-reduce. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        exporter: Exporter,
        first_step: int = 1,
    ) -> None:
        self._exporter = exporter
        self._step = first_step
        self._began = time.perf_counter()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._expected = 0
        self._arrived = 0
        self._reported = False
        self._handles: list[Any] = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                self._expected += 1
                self._handles.append(
                    parameter.register_post_accumulate_grad_hook(self._gradient_is_there)
                )
        self._handles.append(optimizer.register_step_pre_hook(self._stepping))
        self._handles.append(optimizer.register_step_post_hook(self._stepped))

    def _gradient_is_there(self, _parameter: torch.Tensor) -> None:
        # Called on autograd's threads, once for each parameter and backward pass.
        with self._lock:
            self._arrived += 1
            last = self._arrived == self._expected and not self._reported
            self._reported = self._reported or last
        if last:
            self._report()

    def _stepping(self, *_arguments: Any) -> None:
        with self._lock:
            # Some parameters may get no gradient, and several backward passes may accumulate them:
            # the next step is expected to have as many as this one.
            missed, self._reported = not self._reported, True
            if self._arrived:
                self._expected = self._arrived
        if missed:
            self._report()

    def _report(self) -> None:
        self._exporter.report_rank_step(self._step, time.perf_counter() - self._began)

    def _stepped(self, *_arguments: Any) -> None:
        with self._lock:
            self._step += 1
            self._arrived = 0
            self._reported = False
            self._began = time.perf_counter()

    def check(self, *, loss: float | None = None, gradient_norm: float | None = None) -> None:
        """Report values of the newest step that must be the same on every rank.

        Call it after ``optimizer.step()`` with numbers that the loop has on the host anyway.
        """
        self._exporter.check_ranks(self._step - 1, loss=loss, gradient_norm=gradient_norm)

    def close(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()
