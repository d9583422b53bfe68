"""PolicyProbe: attached to a PPO loop in a few lines, it tells what every update did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.probes.torch.emitter import STARTED, Sink, Telling, host_times
from esper_exporter.probes.torch.fields import policy_fields, rollout_fields, stability
from esper_exporter.probes.torch.gradient_fields import Layout, gradient_fields, scaler_fields
from esper_exporter.probes.torch.gradients import is_sharded, measure, scale, zero_counts
from esper_exporter.probes.torch.heads import checked_heads, members, tell_own_heads
from esper_exporter.probes.torch.machine import Memory, compilation, place_in_world
from esper_exporter.probes.torch.phases import Phases
from esper_exporter.probes.torch.transfer import Arrays, Transfer
from esper_exporter.probes.torch.update import PolicyUpdate

_FIELDS = frozenset(field.name for field in fields_of(TamiyoPolicyUpdatePayload))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PolicyProbe:
    """Measures the PPO updates of a factored policy and emits them to an exporter.

    ``heads`` gives each action head's number of choices, by the policy's own names for them.
    ``head_modules`` says whose gradients are a head's, the critic's too ("value", "q").
    ``optimizer`` gives the learning rate, ``scaler`` (``torch.amp.GradScaler``) the loss scale.
    ``max_grad_norm`` and ``clip_ratio`` are those of the loop; None clips nothing. Every
    ``every`` updates the fields that cost more are measured: weight change, share of zeros,
    memory, compilation. ``dual_emit`` emits under the old event names as well.

    Raises ValueError or TypeError for what makes no sense, here and nowhere else: in the loop its
    own failures are counted in ``esper_exporter_internal_errors_total{where="probe"}``.

    Nothing is read from a GPU before it has arrived: an update is told at the next call after its
    copy has, or by `close`. Not thread-safe: it belongs to the thread that trains.
    """

    def __init__(
        self,
        policy: nn.Module,
        exporter: Sink,
        *,
        heads: Mapping[str, int],
        head_modules: Mapping[str, nn.Module] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        max_grad_norm: float | None = 0.5,
        clip_ratio: float = 0.2,
        every: int = 10,
        dual_emit: bool = False,
        group_id: str = "default",
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        named = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("the policy has no parameters that learn")
        if not callable(getattr(exporter, "emit", None)):
            raise TypeError(f"an Exporter is needed, got {type(exporter).__name__}")
        if every < 1 or not clip_ratio > 0 or not (max_grad_norm is None or max_grad_norm > 0):
            raise ValueError("every, clip_ratio and max_grad_norm must be above 0")
        self._heads = checked_heads(heads)
        self._parameters = [parameter for _, parameter in named]
        self._layout = Layout(
            tuple(name for name, _ in named),
            members(self._parameters, head_modules or {}, self._heads),
        )
        self._telling = Telling(exporter, group_id, dual_emit, clock, tuple(self._heads))
        self._optimizer = optimizer
        self._scaler = scaler
        self._max_norm, self._clip_ratio, self._every = max_grad_norm, clip_ratio, every
        device = self._parameters[0].device
        self._transfer = Transfer(device)
        self._memory = Memory(device)
        self._phases = Phases(device)
        self._updates = 0
        self._batch: int | None = None
        self._index = 0
        self._scale: float | None = None
        self._current: PolicyUpdate | None = None

    # -- the loop ------------------------------------------------------------------------------

    @contextmanager
    def update(self, batch: int | None = None) -> Iterator[PolicyUpdate]:
        """One policy update: rollout, minibatches and optimizer steps happen inside the block.

        Updates are numbered 1, 2, 3 …, anew in each ``batch`` (default: all in one). A block that
        raises tells what was not finite, and no update.
        """
        self._poll()
        if self._index == 0 or batch != self._batch:
            self._batch, self._index = batch, 0
        self._index += 1
        self._updates += 1
        index, number = self._index, self._updates if batch is None else batch
        update = PolicyUpdate(
            self._heads,
            self._clip_ratio,
            self._transfer.at_once,
            lambda detail: self._telling.anomaly("nonfinite_detected", detail, number, index),
            self._telling.failed,
            batch=number,
            index=index,
            closely=(self._updates - 1) % self._every == 0,
        )
        before = None
        if update.closely:
            with update.guarded():
                before = [p.detach().clone() for p in self._local_parameters()]
        self._current = update
        try:
            yield update
        except BaseException:
            self._send(update, carried_out=False)
            raise
        else:
            with update.guarded():
                if before is not None:
                    change = torch._foreach_sub(self._local_parameters(), before)
                    norms = torch.stack(torch._foreach_norm(change))
                    update.keep("weight_change", torch.linalg.vector_norm(norms).reshape(1))
                self._see_scale(update)
            update.told.setdefault("update_time_ms", (time.perf_counter() - update.begun) * 1000.0)
            self._send(update, carried_out=True)
        finally:
            self._current = None

    def clip_grad_norm_(
        self,
        parameters: Tensor | Iterable[Tensor] | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
    ) -> Tensor:
        """In place of ``torch.nn.utils.clip_grad_norm_``: clips, and returns the norm before it.

        Without arguments it clips the policy's parameters to ``max_grad_norm``. Parameters other
        than the policy's are clipped and not measured. Raises RuntimeError for a non-finite norm
        only if asked to, which waits for the device as it does in torch.
        """
        limit = self._max_norm if max_norm is None else max_norm
        chosen: list[Any] = (
            self._parameters
            if parameters is None
            else [parameters]
            if isinstance(parameters, Tensor)
            else list(parameters)
        )
        with torch.no_grad():
            clipped = measure(chosen, norm_type)
            if clipped is None:
                return torch.tensor(0.0)
            self._measure(chosen, clipped, limit, norm_type)
            if error_if_nonfinite and not bool(clipped.total.isfinite()):
                raise RuntimeError(
                    f"the total norm of order {norm_type} of the gradients is not finite, so"
                    " they cannot be clipped"
                )
            if limit is not None:
                scale(clipped, limit)
        return clipped.total

    def _measure(
        self, chosen: list[Any], clipped: Any, limit: float | None, norm_type: float
    ) -> None:
        update = self._current
        if update is None or norm_type != 2.0 or len(chosen) != len(self._parameters):
            return
        with update.guarded():
            if chosen is not self._parameters and any(
                one is not own for one, own in zip(chosen, self._parameters, strict=True)
            ):
                return
            update.saw_gradients(clipped, limit, self._scaling)
            self._see_scale(update)
            if update.closely and not any(piece.kind == "zeros" for piece in update.pieces):
                update.keep("zeros", zero_counts(clipped.gradients))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a part of the loop: "forward", "backward", "optimizer", "data_transfer", "epoch"."""
        try:
            return self._phases.time(name)
        except Exception:
            self._telling.failed()
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
        self._telling.emit(
            "TOLARIA_EPOCH_COMPLETED",
            {
                "env_id": env_id,
                "inner_epoch": inner_epoch,
                "val_accuracy": val_accuracy,
                "val_loss": val_loss,
                "train_loss": train_loss,
                "host_train_loss": train_loss,
                "host_lr": lr,
                "host_grad_norm_pre_clip": grad_norm_pre_clip,
                "host_grad_norm": grad_norm_pre_clip,
                **host_times(times_ms),
                **fields,
            },
        )

    def training_started(self, **fields: Any) -> None:
        """Begin the run: TRAINING_STARTED with what the probe knows (learning rate, clip ratio,
        devices, rank, AMP) and with ``fields``, by their names in the contract."""
        device = str(self._parameters[0].device)
        self._telling.emit(
            "TRAINING_STARTED",
            {
                **STARTED,
                "lr": self._learning_rate(),
                "clip_ratio": self._clip_ratio,
                "policy_device": device,
                "env_devices": (device,),
                "amp_enabled": self._scaling,
                "action_heads": tuple(self._heads),
                **place_in_world(),
                **fields,
            },
        )

    def close(self) -> None:
        """Tell what is still on its way. The one call that waits for the device."""
        try:
            self._transfer.flush()
            self._tell_machine()
        except Exception:
            self._telling.failed()

    # -- what is told --------------------------------------------------------------------------

    def _send(self, update: PolicyUpdate, *, carried_out: bool) -> None:
        pieces = list(update.pieces)

        def done(arrays: Arrays) -> None:
            received = list(zip(pieces, arrays, strict=True))
            if not self._transfer.at_once:
                for piece, values in received:
                    update.look(piece, values)
            if carried_out:
                self._tell_update(update, received)

        with update.guarded():
            self._transfer.send([piece.vector for piece in pieces], done)
            if update.skipped or not carried_out:
                self._transfer.flush()
            if carried_out and update.closely:
                self._tell_machine()

    def _tell_update(self, update: PolicyUpdate, received: list[Any]) -> None:
        by_kind: dict[str, list[Any]] = {}
        for piece, values in received:
            by_kind.setdefault(piece.kind, []).append(values)
        minibatches, steps = by_kind.get("minibatch", []), update.steps(received)
        if update.skipped or not minibatches or not steps:
            self._tell_skip(update)
            return
        found = policy_fields(self._heads, minibatches)
        if not update.has_entropy_loss:
            del found["entropy_loss"]
        if "values" in by_kind:
            found |= rollout_fields({kind: last[-1] for kind, last in by_kind.items()}, self._heads)
        found |= gradient_fields(self._layout, steps)
        found |= self._scaler_fields(by_kind.get("scale", []))
        if "zeros" in by_kind:
            zeros, entries = by_kind["zeros"][0].tolist()
            found["grad_zero_fraction"] = zeros / entries
        if "weight_change" in by_kind:
            found["policy_update_magnitude"] = float(by_kind["weight_change"][0][0])
        found["lr"] = self._learning_rate()
        found["numerical_stability_score"] = stability(found, bool(update.findings.detail))
        found |= {"batch": update.batch, "ppo_update_idx": update.index}
        found |= {name: value for name, value in update.told.items() if name in _FIELDS}
        measured = {name: value for name, value in found.items() if value is not None}
        measured["action_heads"] = tuple(self._heads)
        tell_own_heads(measured, self._heads)
        self._telling.emit("TAMIYO_POLICY_UPDATE", measured)

    def _scaler_fields(self, scales: list[Any]) -> dict[str, Any]:
        seen = [float(values[0]) for values in scales]
        if self._scale is not None and seen:
            seen.insert(0, self._scale)
        if seen:
            self._scale = seen[-1]
        return scaler_fields(seen)

    def _tell_skip(self, update: PolicyUpdate) -> None:
        detail = update.findings.detail
        kind = "ppo_finiteness_skip" if detail else "update_skipped"
        self._telling.anomaly(kind, detail, update.batch, update.index)

    def _tell_machine(self) -> None:
        times = self._phases.take()
        means = {
            f"avg_{phase}_time_ms": sum(values) / len(values)
            for phase, values in times.items()
            if phase != "epoch"
        }
        stats = self._memory.stats()
        if stats:
            allocator = self._memory.allocator(stats)
            self._telling.emit("ALLOCATOR_STATS", {"batch_idx": self._updates, **allocator})
        found: dict[str, Any] = {**self._memory.fields(stats), **compilation(), **means}
        if found or times:
            found |= {"phase_times_ms": times, "batch_window": self._every}
            self._telling.emit("INFRASTRUCTURE_SNAPSHOT", found)

    # -- small things --------------------------------------------------------------------------

    @property
    def _scaling(self) -> bool:
        return self._scaler is not None and bool(self._scaler.is_enabled())

    def _see_scale(self, update: PolicyUpdate) -> None:
        now = getattr(self._scaler, "_scale", None) if self._scaling else None
        if now is not None:
            update.saw_scale(now)

    def _learning_rate(self) -> float | None:
        if self._optimizer is None:
            return None
        lr = self._optimizer.param_groups[0]["lr"]
        return float(lr) if not isinstance(lr, Tensor) or lr.device.type == "cpu" else None

    def _local_parameters(self) -> list[Tensor]:
        return [p.detach().to_local() if is_sharded(p) else p.detach() for p in self._parameters]

    def _poll(self) -> None:
        try:
            self._transfer.poll()
        except Exception:
            self._telling.failed()
