"""Measures the host networks' training from outside: phases, losses, gradient norms by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_exporter.adapters.esper.context import Context, Guard
from esper_exporter.adapters.esper.host_scales import HostScales
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

Time = Any
"""Milliseconds, or a device's events at its begin and end."""


def _mark(cuda: bool) -> Any:
    """A point in time: on a CPU by the clock, on CUDA an event of the current stream."""
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _total(times: Sequence[Time]) -> float:
    """The sum of times in milliseconds; on a device it waits for the last."""
    found = 0.0
    for each in times:
        if isinstance(each, float):
            found += each
        else:
            begin, end = each
            end.synchronize()
            found += begin.elapsed_time(end)
    return found


def _numbers(tensors: Sequence[Tensor]) -> list[float]:
    """Tensors with one number each; on a device with one copy."""
    if tensors[0].device.type == "cpu":
        return [each.item() for each in tensors]
    found: list[float] = torch.stack([each.detach().double() for each in tensors]).tolist()
    return found


class _Batch:
    """One batch of one host: listens to its clipping and its optimizers' steps."""

    __slots__ = ("_cuda", "_stepping", "_times", "begun", "norm")

    def __init__(self, cuda: bool, times: dict[str, list[Time]]) -> None:
        self._cuda = cuda
        self._times = times
        self._stepping: Any = None
        self.norm: Tensor | None = None
        self.begun = _mark(cuda)

    def begin_forward(self) -> None:
        """The model is called now."""
        self.begun = self.mark()

    def clipping(self, parameters: Sequence[Tensor], max_norm: float, total: Tensor) -> None:
        """The host's clipping comes first, each seed's after it."""
        if self.norm is None:
            self.norm = total.detach()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer begins its step. Measures gradients that were not clipped."""
        if self.norm is None:
            gradients = [
                p.grad
                for group in optimizer.param_groups
                for p in group["params"]
                if p.grad is not None
            ]
            if gradients:
                self.norm = torch.nn.utils.get_total_norm(gradients)
        self._stepping = self.mark()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """It has ended."""
        if self._stepping is not None:
            self.took("optimizer", self._stepping)
            self._stepping = None

    def mark(self) -> Any:
        """Now."""
        return time.perf_counter() if not self._cuda else _mark(True)

    def took(self, phase: str, begin: Any) -> None:
        """A phase ends now."""
        end = self.mark()
        self._times[phase].append((begin, end) if self._cuda else (end - begin) * 1000.0)


class _Epoch:
    """One host's batches of one inner epoch."""

    def __init__(self) -> None:
        self.times: dict[str, list[Time]] = {phase: [] for phase in PHASES}
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.scales: list[tuple[Tensor, Tensor]] = []
        """The loss scale before and after each batch, where there is a scaler."""
        self.lr: Any = None

    def add(self, batch: _Batch, loss: Tensor, lr: Any) -> None:
        """One batch."""
        self.losses.append(loss)
        if batch.norm is not None:
            self.norms.append(batch.norm)
        self.lr = lr

    def fields(self, waited_ms: float, took_ms: float) -> Fields:
        """The fields of the host's event. May wait for the device."""
        found: Fields = {
            "forward_time_ms": _total(self.times["forward"]),
            "backward_time_ms": _total(self.times["backward"]),
            "optimizer_step_time_ms": _total(self.times["optimizer"]),
            "data_transfer_time_ms": waited_ms,
            "host_epoch_time_ms": took_ms,
            "host_lr": None if isinstance(self.lr, Tensor) else float(self.lr),
        }
        if self.losses:
            found["host_train_loss"] = float(np.mean(_numbers(self.losses)))
        if self.norms and (norms := self._faultless()):
            found["host_grad_norm_pre_clip"] = float(np.max(norms))  # of NaN, NaN
        return {name: value for name, value in found.items() if value is not None}

    def _faultless(self) -> list[float]:
        """The norms, without those of overflows that a scaler handled by a lower scale."""
        norms = _numbers(self.norms)
        if len(self.scales) != len(norms):
            return norms
        fell = [bool(after < before) for before, after in self.scales]
        return [n for n, down in zip(norms, fell, strict=True) if math.isfinite(n) or not down]


class HostSeams:
    """The seams of the hosts' training."""

    def __init__(
        self,
        exporter: Any,
        joining: Joining,
        context: Context,
        probes: list[Any],
        scales: HostScales,
    ) -> None:
        self._joining = joining
        self._context = context
        self._probes = probes
        self._scales = scales
        self._failed = exporter.probe_failed
        self._guard = Guard(exporter.probe_failed)

    def install(self, seams: Seams) -> None:
        """Install all of them."""
        self._seams = seams
        seams.put(HOST_BATCH, self._batch)
        seams.put(HOST_EPOCH, self._epoch)
        seams.put(BACKWARD, self._backward)

    def _batch(self, original: Any) -> Any:
        context, scales = self._context, self._scales

        def process_train_batch(env_state: Any, *args: Any, **more: Any) -> Any:
            loss_fn, epochs = more.get("loss_and_correct_fn"), context.epoch
            if epochs is None or loss_fn is None or not self._seams.open:
                return original(env_state, *args, **more)
            scaled = False
            try:
                scaler = getattr(env_state, "scaler", None)
                scaled = scaler is not None and bool(scaler.is_enabled())
                epoch = epochs.get(id(env_state))
                if epoch is None:
                    epoch = epochs[id(env_state)] = _Epoch()
                if scaled:
                    scales.before(env_state)
                batch = _Batch(getattr(env_state, "stream", None) is not None, epoch.times)
            except Exception:
                self._failed()
                return original(env_state, *args, **more)

            def loss_and_correct(*given: Any, **named: Any) -> Any:
                found = loss_fn(*given, **named)
                batch.took("forward", batch.begun)
                return found

            more["loss_and_correct_fn"] = loss_and_correct
            context.host = batch
            listen(batch)
            try:
                result = original(env_state, *args, **more)
            finally:
                ignore(batch)
                context.host = None
            try:
                if scaled:
                    epoch.scales.append(scales.after(env_state))
                epoch.add(batch, result[0], env_state.host_optimizer.param_groups[0]["lr"])
            except Exception:
                self._failed()
            return result

        return process_train_batch

    def _backward(self, original: Any) -> Any:
        context = self._context

        def backward(tensor: Tensor, *args: Any, **more: Any) -> Any:
            batch = context.host
            if batch is None:
                return original(tensor, *args, **more)
            begin = batch.mark()
            result = original(tensor, *args, **more)
            batch.took("backward", begin)
            return result

        return backward

    def _epoch(self, original: Any) -> Any:
        context, see, begin_forward = self._context, self._guard(self._see_epoch), self._forward

        def _run_train_pass(*args: Any, **more: Any) -> Any:
            if not self._seams.open or context.key is None or "env_states" not in more:
                return original(*args, **more)
            hooks: list[Any] = []
            context.epoch = {}
            try:
                for env_state in more["env_states"]:
                    hooks.append(env_state.model.register_forward_pre_hook(begin_forward))
            except Exception:
                self._failed()
            begun = time.perf_counter()
            try:
                result = original(*args, **more)
                see(more, result, (time.perf_counter() - begun) * 1000.0)
                return result
            finally:
                context.epoch = None
                for hook in hooks:
                    hook.remove()

        return _run_train_pass

    def _forward(self, *_: Any) -> None:
        batch = self._context.host
        if batch is not None:
            batch.begin_forward()

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
                        probe.record_time(phase, _total(times))
        for probe in self._probes:
            probe.record_time("data_transfer", waited)
            probe.record_time("epoch", took_ms)


def _resolve(epoch: _Epoch, waited_ms: float, took_ms: float) -> Callable[[], Fields]:
    return lambda: epoch.fields(waited_ms, took_ms)
