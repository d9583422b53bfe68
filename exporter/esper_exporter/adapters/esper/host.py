"""Measures the host networks' training from outside: phases, losses, gradient norms by epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from esper_exporter.adapters.esper.context import Context, Guard
from esper_exporter.adapters.esper.join import Fields, Joining
from esper_exporter.adapters.esper.seams import Seam, Seams
from esper_exporter.probes.torch.loop_hooks import ignore, listen

TRAINER = "esper.simic.training.vectorized_trainer"
HOST_BATCH = Seam("host_batch", TRAINER, "process_train_batch", ("loss_and_correct_fn",))
HOST_EPOCH = Seam(
    "host_epoch", TRAINER, "VectorizedPPOTrainer._run_train_pass", ("env_states", "epoch")
)
BACKWARD = Seam("backward", "torch", "Tensor.backward")
PHASES = ("forward", "backward", "optimizer")

Time = Callable[[], float]
"""Milliseconds between two marks; on a device the call waits for the second."""


class _Clock:
    """Marks points in time: on a CPU by the clock, on CUDA by events of the current stream."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda

    def mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> Time:
        if not self._cuda:
            milliseconds = (end - begin) * 1000.0
            return lambda: milliseconds

        def elapsed() -> float:
            end.synchronize()
            return float(begin.elapsed_time(end))

        return elapsed


class _Batch:
    """One batch of one host: listens to its clipping and its optimizers' steps."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.times: dict[str, list[Time]] = {phase: [] for phase in PHASES}
        self.norm: Tensor | None = None
        self.begun: Any = None
        self._stepping: Any = None

    def clipping(self, parameters: Sequence[Tensor], max_norm: float, total: Tensor) -> None:
        """The host's clipping comes first, each seed's after it."""
        if self.norm is None:
            self.norm = total.detach()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer begins its step. What was not clipped is measured here."""
        if self.norm is None:
            gradients = [
                p.grad
                for group in optimizer.param_groups
                for p in group["params"]
                if p.grad is not None
            ]
            if gradients:
                self.norm = torch.nn.utils.get_total_norm(gradients)
        self._stepping = self.clock.mark()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """It has ended."""
        if self._stepping is not None:
            self.took("optimizer", self._stepping)
            self._stepping = None

    def took(self, phase: str, begin: Any) -> None:
        """A phase ends now."""
        self.times[phase].append(self.clock.between(begin, self.clock.mark()))


class _Epoch:
    """One host's batches of one inner epoch."""

    def __init__(self) -> None:
        self.times: dict[str, list[Time]] = {phase: [] for phase in PHASES}
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.lr: float | None = None

    def add(self, batch: _Batch, loss: Tensor, lr: Any) -> None:
        """One batch."""
        for phase, times in batch.times.items():
            self.times[phase] += times
        self.losses.append(loss.detach())
        if batch.norm is not None:
            self.norms.append(batch.norm)
        self.lr = float(lr) if not isinstance(lr, Tensor) else None

    def fields(self, waited_ms: float, took_ms: float) -> Fields:
        """The fields of the host's event. May wait for the device."""
        found: Fields = {
            "forward_time_ms": sum(each() for each in self.times["forward"]),
            "backward_time_ms": sum(each() for each in self.times["backward"]),
            "optimizer_step_time_ms": sum(each() for each in self.times["optimizer"]),
            "data_transfer_time_ms": waited_ms,
            "host_epoch_time_ms": took_ms,
            "host_lr": self.lr,
        }
        if self.losses:
            found["host_train_loss"] = float(torch.stack(self.losses).double().mean())
        if self.norms:
            norms = torch.stack([norm.double() for norm in self.norms])
            found["host_grad_norm_pre_clip"] = float(norms.max())  # of NaN, NaN
        return {name: value for name, value in found.items() if value is not None}


class HostSeams:
    """The seams of the hosts' training."""

    def __init__(
        self, exporter: Any, joining: Joining, context: Context, probes: list[Any]
    ) -> None:
        self._joining = joining
        self._context = context
        self._probes = probes
        self._guard = Guard(exporter.probe_failed)

    def install(self, seams: Seams) -> None:
        """Put all of them in."""
        self._seams = seams
        seams.put(HOST_BATCH, self._batch)
        seams.put(HOST_EPOCH, self._epoch)
        seams.put(BACKWARD, self._backward)

    def _batch(self, original: Any) -> Any:
        context, see = self._context, self._guard(self._see_batch)

        def process_train_batch(env_state: Any, *args: Any, **more: Any) -> Any:
            loss_fn = more.get("loss_and_correct_fn")
            if not self._seams.open or loss_fn is None or context.epoch is None:
                return original(env_state, *args, **more)
            batch = _Batch(_Clock(getattr(env_state, "stream", None) is not None))
            batch.begun = batch.clock.mark()

            def begin(*_: Any) -> None:
                batch.begun = batch.clock.mark()

            def loss_and_correct(*given: Any, **named: Any) -> Any:
                found = loss_fn(*given, **named)
                batch.took("forward", batch.begun)
                return found

            more["loss_and_correct_fn"] = loss_and_correct
            hook = env_state.model.register_forward_pre_hook(begin)
            context.host = batch
            listen(batch)
            try:
                result = original(env_state, *args, **more)
            finally:
                ignore(batch)
                context.host = None
                hook.remove()
            see(env_state, batch, result)
            return result

        return process_train_batch

    def _see_batch(self, env_state: Any, batch: _Batch, result: Any) -> None:
        epochs = self._context.epoch
        if epochs is None:
            return
        epoch = epochs.get(id(env_state))
        if epoch is None:
            epoch = epochs[id(env_state)] = _Epoch()
        epoch.add(batch, result[0], env_state.host_optimizer.param_groups[0]["lr"])

    def _backward(self, original: Any) -> Any:
        context = self._context

        def backward(tensor: Tensor, *args: Any, **more: Any) -> Any:
            batch = context.host
            if batch is None:
                return original(tensor, *args, **more)
            begin = batch.clock.mark()
            result = original(tensor, *args, **more)
            batch.took("backward", begin)
            return result

        return backward

    def _epoch(self, original: Any) -> Any:
        context, see = self._context, self._guard(self._see_epoch)

        def _run_train_pass(*args: Any, **more: Any) -> Any:
            if not self._seams.open or context.key is None or "env_states" not in more:
                return original(*args, **more)
            context.epoch = {}
            begun = time.perf_counter()
            try:
                result = original(*args, **more)
                see(more, result, (time.perf_counter() - begun) * 1000.0)
                return result
            finally:
                context.epoch = None

        return _run_train_pass

    def _see_epoch(self, more: Any, result: Any, took_ms: float) -> None:
        epochs, key = self._context.epoch, self._context.key
        if epochs is None or key is None:
            return
        waited = float(result[1])
        for env, env_state in enumerate(more["env_states"]):
            epoch = epochs.get(id(env_state))
            if epoch is None:
                continue
            self._joining.epoch((key[0], env, int(more["epoch"])), _resolve(epoch, waited, took_ms))
            if getattr(env_state, "stream", None) is None:
                for probe in self._probes:
                    for phase, times in epoch.times.items():
                        probe.record_time(phase, sum(each() for each in times))
        for probe in self._probes:
            probe.record_time("data_transfer", waited)
            probe.record_time("epoch", took_ms)


def _resolve(epoch: _Epoch, waited_ms: float, took_ms: float) -> Callable[[], Fields]:
    return lambda: epoch.fields(waited_ms, took_ms)
