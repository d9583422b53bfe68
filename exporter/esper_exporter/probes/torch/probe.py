"""PolicyProbe: attached to a PPO loop in a few lines, it reports every update."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from esper_exporter.probes.torch.action_heads import (
    Heads,
    checked_heads,
    members,
    named_parameters,
)
from esper_exporter.probes.torch.emitter import STARTED, Emitter, Sink, host_times
from esper_exporter.probes.torch.gradient_fields import (
    Layout,
    Part,
)
from esper_exporter.probes.torch.gradient_steps import GradientSteps
from esper_exporter.probes.torch.gradients import (
    Clipped,
    measure,
    scale,
    zero_counts,
)
from esper_exporter.probes.torch.loop_hooks import ignore, listen
from esper_exporter.probes.torch.loss_scale import LossScale
from esper_exporter.probes.torch.machine import Memory, emit_machine, place_in_world
from esper_exporter.probes.torch.phases import Phases
from esper_exporter.probes.torch.transfer import Arrays, Transfer
from esper_exporter.probes.torch.update import PolicyUpdate, Setup
from esper_exporter.probes.torch.update_reports import UpdateReports
from esper_exporter.probes.torch.weights import Weights


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PolicyProbe:
    """Measures the PPO updates of a factored policy and emits them to an exporter.

    ``heads`` gives each action head's number of choices, by the policy's own names for them; None
    for a continuous head. ``head_modules`` says whose gradients are a head's, the critic's too
    ("value", "q"). ``optimizer`` gives the learning rate, ``scaler`` (``torch.amp.GradScaler``) the
    loss scale. ``max_grad_norm`` and ``clip_ratio`` are those of the loop; None clips nothing.
    Every ``every`` updates the fields that cost more are measured: weight change, share of zeros,
    memory, compilation. Of every ``sample_minibatches`` minibatches one is measured; all are
    searched for NaN. ``exact_norms`` sums the norms of gradients that torch clips in float64, which
    takes seven times as long. ``dual_emit`` emits under the old event names as well.

    Raises ValueError or TypeError for what makes no sense, here and nowhere else: in the loop its
    own failures are counted in ``esper_exporter_internal_errors_total{where="probe"}``.

    Nothing is read from a GPU before it has arrived: an update is emitted at the next call after
    its copy has, or by `close`. Not thread-safe: it belongs to the thread that trains.
    """

    def __init__(
        self,
        policy: nn.Module,
        exporter: Sink,
        *,
        heads: Heads,
        head_modules: Mapping[str, nn.Module] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        max_grad_norm: float | None = 0.5,
        clip_ratio: float = 0.2,
        every: int = 10,
        sample_minibatches: int = 1,
        exact_norms: bool = False,
        dual_emit: bool = False,
        group_id: str = "default",
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        named = [(name, p) for name, p in named_parameters(policy) if p.requires_grad]
        if not named:
            raise ValueError("the policy has no parameters that learn")
        if not callable(getattr(exporter, "emit", None)):
            raise TypeError(f"an Exporter is needed, got {type(exporter).__name__}")
        if every < 1 or not clip_ratio > 0 or not (max_grad_norm is None or max_grad_norm > 0):
            raise ValueError("every, clip_ratio and max_grad_norm must be above 0")
        if type(sample_minibatches) is not int or sample_minibatches < 1:
            raise ValueError("sample_minibatches must be a whole number above 0")
        self._heads = checked_heads(heads)
        self._numbered = list(enumerate(parameter for _, parameter in named))
        self._parameters = [parameter for _, parameter in named]
        self._layout = Layout(
            tuple(name for name, _ in named),
            members(self._parameters, head_modules or {}, self._heads),
        )
        self._emitter = Emitter(exporter, group_id, dual_emit, clock, tuple(self._heads))
        self._reports = UpdateReports(self._emitter, self._heads, self._layout, max_grad_norm)
        self._optimizer = optimizer
        self._loss_scale = LossScale(scaler, optimizer)
        self._max_norm, self._clip_ratio, self._every = max_grad_norm, clip_ratio, every
        self._sampled = sample_minibatches
        self._exact = exact_norms
        device = self._parameters[0].device
        self._transfer = Transfer(device)
        self._memory = Memory(device)
        self._phases = Phases(device)
        self._updates = 0
        self._batch: int | None = None
        self._index = 0
        self._current: PolicyUpdate | None = None
        self._weights = Weights(self._parameters)
        self._places = {id(parameter): place for place, parameter in self._numbered}
        self._steps = GradientSteps(self._places)
        self._zeros_counted = False
        self.after_step: Callable[[torch.optim.Optimizer], None] | None = None
        """Called when an optimizer has made a step and all of it is measured."""

    def update(self, batch: int | None = None) -> PolicyUpdate:
        """One policy update: rollout, minibatches and optimizer steps happen inside its block, or
        between its ``begin()`` and ``end()``.

        Updates are numbered 1, 2, 3 …, anew in each ``batch`` (default: all in one). A block that
        raises reports what was not finite, and no update.
        """
        setup = Setup(
            self._heads,
            self._clip_ratio,
            self._layout,
            self._transfer.home,
            self._transfer.at_once,
            self._sampled,
            self._nonfinite,
            self._emitter.failed,
        )
        return PolicyUpdate(setup, self, batch)

    def begin(self, update: PolicyUpdate) -> None:
        """For `PolicyUpdate.begin`. An update without an end was not completed."""
        self._poll()
        if self._current is not None:
            self._close_update(self._current, "no_event")
        batch = update.asked_batch
        if self._index == 0 or batch != self._batch:
            self._batch, self._index = batch, 0
        self._index += 1
        self._updates += 1
        update.index, update.batch = self._index, self._updates if batch is None else batch
        update.closely = (self._updates - 1) % self._every == 0
        update.begun = time.perf_counter()
        self._weights.forget()
        self._steps = GradientSteps(self._places)
        self._zeros_counted = False
        if update.closely:
            with update.guarded():
                self._weights.remember()
        self._current = update
        listen(self)

    def end(self, update: PolicyUpdate, error: BaseException | None) -> None:
        """For `PolicyUpdate.end`. A second end does nothing."""
        if update is self._current:
            self._close_update(update, None if error is None else "raised")

    def _close_update(self, update: PolicyUpdate, incomplete: str | None) -> None:
        ignore(self)
        self._current = None
        update.reported.setdefault("update_time_ms", (time.perf_counter() - update.begun) * 1000.0)
        update.measure_rows()
        with update.guarded():
            self._weights.see(update)
            self._loss_scale.see(update)
        self._weights.forget()
        self._send(update, incomplete)

    def drop(self, update: PolicyUpdate) -> None:
        """Drop the running update."""
        if update is self._current:
            ignore(self)
            self._current = None
            self._weights.forget()

    @property
    def on_device(self) -> bool:
        """Whether values reach the host later, with the update's one copy."""
        return not self._transfer.at_once

    @property
    def group_id(self) -> str:
        """The A/B group of its events."""
        return self._emitter.group_id

    def record_time(self, phase: str, milliseconds: float) -> None:
        """Record a phase's time that the caller measured."""
        self._phases.add(phase, milliseconds)

    def flush(self) -> None:
        """Wait for pending copies from the device, and emit them."""
        self._transfer.flush()

    def clip_grad_norm_(
        self,
        parameters: Tensor | Iterable[Tensor] | None = None,
        max_norm: float | None = None,
        norm_type: float | str = 2.0,
        error_if_nonfinite: bool = False,
        foreach: bool | None = None,
    ) -> Tensor:
        """In place of ``torch.nn.utils.clip_grad_norm_``: clips, and returns the norm before it.

        Without arguments it clips the policy's parameters to ``max_grad_norm``. Parameters other
        than the policy's are clipped and not measured. ``norm_type``, ``error_if_nonfinite`` and
        ``foreach`` are torch's; what is measured is the 2-norm. Raises RuntimeError for a
        non-finite norm only if asked to, which waits for the device as it does in torch.
        """
        limit = self._max_norm if max_norm is None else float(max_norm)
        kind = float(norm_type)
        places = self._places
        chosen = self._numbered
        if parameters is not None:
            given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            chosen = [(places.get(id(p), -1), p) for p in given]
        with torch.set_grad_enabled(False):  # cheaper than `torch.no_grad`
            clipped = measure(chosen, kind)
            if clipped is None:
                return torch.tensor(0.0)
            if self._current is not None:
                self._measure(self._current, chosen, clipped, limit, kind)
            if error_if_nonfinite and not bool(clipped.total.isfinite()):
                raise RuntimeError(
                    f"the total norm of order {norm_type} of the gradients is not finite, so"
                    " they cannot be clipped"
                )
            if limit is None:
                pass
            elif clipped.uniform and not clipped.sharded and foreach is None:
                scale(clipped, limit, known=self._transfer.at_once)
            else:
                everything = [p for _, p in chosen]
                clip_grads_with_norm_(everything, limit, clipped.total, foreach)
        return clipped.total

    def _measure(
        self,
        update: PolicyUpdate,
        chosen: list[tuple[int, Tensor]],
        clipped: Clipped,
        limit: float | None,
        norm_type: float,
    ) -> None:
        try:
            if norm_type != 2.0 or -1 in clipped.indices:
                mine = [(place, p) for place, p in chosen if place >= 0]
                found = measure(mine, total=clipped.total)
                if found is None:
                    return
                clipped = found
            self._saw(update, clipped, limit, before_clipping=True)
        except Exception:
            self._emitter.failed()

    def _saw(
        self, update: PolicyUpdate, clipped: Clipped, limit: float | None, *, before_clipping: bool
    ) -> None:
        number, scaled = self._steps.measured(clipped.indices), self._loss_scale.enabled
        part = Part(number, clipped.indices, limit, before_clipping, scaled, clipped.sharded)
        update.saw_gradients(clipped, part)
        if scaled:
            self._loss_scale.see(update)
        if update.closely and not self._zeros_counted:
            self._zeros_counted = True
            update.keep("zeros", zero_counts(clipped.gradients))

    def clipping(self, parameters: Sequence[Tensor], max_norm: float, total: Tensor) -> None:
        """torch's own clipping, in an update of this thread."""
        update = self._current
        if update is None:
            return
        with update.guarded():
            found = measure(self._steps.mine(parameters), total=total, exact=self._exact)
            if found is not None:
                self._saw(update, found, float(max_norm), before_clipping=True)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step in an update of this thread: measures what no clipping showed."""
        update = self._current
        if update is None:
            return
        try:
            self._loss_scale.look()
            if left := self._steps.left_to_measure(optimizer):
                with torch.no_grad():
                    if (found := measure(left)) is not None:
                        self._saw(update, found, None, before_clipping=self._max_norm is None)
            self._steps.used(optimizer)
        except Exception:
            self._emitter.failed()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """For `loop_hooks.Listener`."""
        if self.after_step is not None:
            self.after_step(optimizer)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a part of the loop: "forward", "backward", "optimizer", "data_transfer", "epoch"."""
        try:
            return self._phases.time(name)
        except Exception:
            self._emitter.failed()
            return nullcontext()

    def host_epoch(
        self,
        env_id: int,
        inner_epoch: int,
        *,
        val_accuracy: float,
        val_loss: float,
        train_loss: float | None = None,
        lr: float | None = None,
        grad_norm_pre_clip: float | None = None,
        times_ms: Mapping[str, float] | None = None,
        **fields: Any,
    ) -> None:
        """One epoch of a host network, as TOLARIA_EPOCH_COMPLETED; accuracies are percent.

        ``times_ms`` gives the time of each phase, ``fields`` further fields of the contract. All
        are plain numbers: reading a tensor of a GPU would wait for it, and is the caller's choice.
        """
        values = {"env_id": env_id, "inner_epoch": inner_epoch, "host_lr": lr}
        values |= {"val_accuracy": val_accuracy, "val_loss": val_loss}
        values |= dict.fromkeys(("train_loss", "host_train_loss"), train_loss)
        values |= dict.fromkeys(("host_grad_norm", "host_grad_norm_pre_clip"), grad_norm_pre_clip)
        self._emitter.emit("TOLARIA_EPOCH_COMPLETED", {**values, **host_times(times_ms), **fields})

    def training_started(self, **fields: Any) -> None:
        """Begin the run: TRAINING_STARTED with what the probe knows (learning rate, clip ratio,
        devices, rank, AMP) and with ``fields``, by their names in the contract."""
        device = str(self._parameters[0].device)
        self._emitter.emit(
            "TRAINING_STARTED",
            {
                **STARTED,
                "lr": self._learning_rate(),
                "clip_ratio": self._clip_ratio,
                "policy_device": device,
                "env_devices": (device,),
                "amp_enabled": self._loss_scale.enabled,
                "action_heads": tuple(self._heads),
                **place_in_world(),
                **fields,
            },
        )

    def close(self) -> None:
        """Emit updates that are still in transfer. The only call that waits for the device."""
        try:
            self._transfer.flush()
            emit_machine(self._emitter, self._memory, self._phases, self._updates, self._every)
        except Exception:
            self._emitter.failed()

    def _nonfinite(self, detail: str, update: PolicyUpdate) -> None:
        self._emitter.anomaly("nonfinite_detected", detail, update.batch, update.index)

    def _send(self, update: PolicyUpdate, incomplete: str | None) -> None:
        pieces, scale = list(update.pieces), self._loss_scale

        def done(arrays: Arrays) -> None:
            received = list(zip(pieces, arrays, strict=True))
            if not self._transfer.at_once:
                for piece, values in received:
                    update.sources.look(piece, values)
            self._reports.emit(update, received, incomplete, self._learning_rate(), scale)

        with update.guarded():
            if self._transfer.at_once:
                done(update.arrays())
            else:
                self._transfer.send([piece.vector for piece in pieces], done)
            if update.skipped or incomplete is not None:
                self._transfer.flush()
            elif update.closely:
                emit_machine(self._emitter, self._memory, self._phases, self._updates, self._every)

    def _learning_rate(self) -> float | None:
        if self._optimizer is None:
            return None
        lr = self._optimizer.param_groups[0]["lr"]
        return float(lr) if not isinstance(lr, Tensor) or lr.device.type == "cpu" else None

    def _poll(self) -> None:
        try:
            self._transfer.poll()
        except Exception:
            self._emitter.failed()
