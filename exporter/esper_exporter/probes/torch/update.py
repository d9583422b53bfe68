"""One policy update while it runs: what the loop hands over, as vectors that wait on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from esper_exporter.probes.torch import minibatch as policy
from esper_exporter.probes.torch import rollout, rollout_on_cpu
from esper_exporter.probes.torch.action_heads import Heads
from esper_exporter.probes.torch.gradient_fields import Layout, Part, Step
from esper_exporter.probes.torch.gradients import Clipped, look_closer
from esper_exporter.probes.torch.minibatch_rows import Rows
from esper_exporter.probes.torch.nonfinite_report import Findings
from esper_exporter.probes.torch.nonfinite_sources import Piece, Sources

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Setup:
    """The policy that an update belongs to, and how to report."""

    heads: Heads
    clip_ratio: float
    layout: Layout
    home: Callable[[Tensor], Tensor]
    at_once: bool
    """Whether the host can read a vector without waiting for a device."""
    sample_minibatches: int
    report: Callable[[str, PolicyUpdate], None]
    failed: Callable[[], None]


class Guarded:
    """A block that records no gradients; an error in it is counted and goes no further.

    A class, since a generator's overhead is a tenth of what a minibatch costs, and so is that of
    ``torch.no_grad`` over ``set_grad_enabled``.
    """

    __slots__ = ("_failed", "_grad")

    def __init__(self, failed: Callable[[], None]) -> None:
        self._failed = failed

    def __enter__(self) -> None:
        self._grad = torch.set_grad_enabled(False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._grad.__exit__(kind, error, trace)
        if not isinstance(error, Exception):
            return False
        self._failed()
        return True


class Lifecycle(Protocol):
    """The probe, to its updates."""

    def begin(self, update: PolicyUpdate) -> None:
        """The update begins; it gets its numbers."""

    def end(self, update: PolicyUpdate, error: BaseException | None) -> None:
        """The update is over; with an error it was not completed."""


class PolicyUpdate:
    """One policy update, as ``PolicyProbe.update`` gives it: a context manager, or, without
    indenting the loop, `begin` and `end`. Nothing here raises.

    Tensors may have any shape, the same for all of a call, and any floating-point type; they are
    read, never kept and never changed.
    """

    def __init__(self, setup: Setup, lifecycle: Lifecycle, batch: int | None) -> None:
        self.batch = batch if batch is not None else 0
        self.asked_batch = batch
        self.index = 0
        """Number of the update within its batch: 1, 2, 3 …"""
        self.closely = False
        """Whether this update measures the medium-overhead fields too."""
        self.skipped = False
        self.pieces: list[Piece] = []
        self.reported: dict[str, Any] = {}
        self.begun = time.perf_counter()
        self.findings = Findings(self._report_nonfinite)
        self.sources = Sources(self.findings, setup.layout)
        self._setup = setup
        self._lifecycle = lifecycle
        self._rows: dict[tuple[object, ...], Rows] = {}
        self._minibatches = 0

    def begin(self) -> Self:
        """The update begins here; `end` ends it. Not for use in a ``with``."""
        self._lifecycle.begin(self)
        return self

    def end(self) -> None:
        """The update was completed."""
        self._lifecycle.end(self, None)

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._lifecycle.end(self, error)

    def rollout(
        self,
        *,
        values: Tensor | None = None,
        returns: Tensor | None = None,
        advantages: Tensor | None = None,
        raw_advantages: Tensor | None = None,
        td_errors: Tensor | None = None,
        actions: Mapping[str, Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """The rollout that this update learns from, once per update; all that there is of it.

        ``values`` and ``returns`` are the critic's estimates and their targets, ``advantages`` as
        they are used (normalised), ``raw_advantages`` before that, ``td_errors`` those of GAE,
        ``actions`` the choices by head, ``valid`` False where a step is padding.
        """
        with self.guarded():
            reported = {
                "values": values,
                "returns": returns,
                "advantages": advantages,
                "raw_advantages": raw_advantages,
                "td_errors": td_errors,
            }
            home = self._setup.home
            given = {
                kind: home(tensor)
                for kind, tensor in reported.items()
                if tensor is not None and tensor.numel()
            }
            taken = {head: home(each) for head, each in (actions or {}).items() if each.numel()}
            choices = {h: n for h, n in self._setup.heads.items() if h in taken and n is not None}
            vectors = rollout_on_cpu.vectors if self._setup.at_once else rollout.vectors
            seen = None if valid is None else home(valid)
            for kind, vector in vectors(given, taken, choices, seen):
                self._keep(kind, vector)

    def minibatch(
        self,
        *,
        log_probs: Mapping[str, Tensor] | None = None,
        old_log_probs: Mapping[str, Tensor] | None = None,
        entropy: Mapping[str, Tensor] | None = None,
        policy_loss: Tensor | float | None = None,
        value_loss: Tensor | float | None = None,
        entropy_loss: Tensor | float | None = None,
        logits: Mapping[str, Tensor] | None = None,
        active: Mapping[str, Tensor] | None = None,
        learnable: Mapping[str, Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """One minibatch, after the forward pass and before the backward one; all that there is.

        By head: the log-probabilities of the actions taken, now and when they were taken (nats),
        and the entropies (nats). ``active`` is True where the head mattered for what was done,
        ``learnable`` where it had more than one legal choice (default: everywhere), ``valid``
        False where a step is padding. ``logits`` (…, choices) show whether a logit is Inf or NaN:
        what a softmax makes of both is NaN. Losses are scalars. What is left out is absent.
        """
        with self.guarded():
            self._minibatches += 1
            if policy_loss is not None:
                self._see_loss("policy_loss", policy_loss)
            if value_loss is not None:
                self._see_loss("value_loss", value_loss)
            if entropy_loss is not None:
                self._see_loss("entropy_loss", entropy_loss)
            if logits:
                self._see_logits(logits, wait=False)
            if log_probs:
                self._see_rows(log_probs, old_log_probs, entropy, active, learnable, valid)

    def _see_loss(self, name: str, loss: Tensor | float) -> None:
        if isinstance(loss, Tensor) and not self._setup.at_once:
            self._keep("loss", loss.detach().reshape(1), name)
            return
        self.sources.loss(name, loss.item() if isinstance(loss, Tensor) else float(loss))

    def logits(self, logits: Mapping[str, Tensor]) -> None:
        """Logits by head, (…, choices), read now: waits for the device. For a loop that has just
        seen something that is not finite."""
        with self.guarded():
            self._see_logits(logits, wait=True)

    def _see_logits(self, logits: Mapping[str, Tensor], *, wait: bool) -> None:
        heads = tuple(head for head in self._setup.heads if head in logits)
        kinds = [policy.logits_kinds(self._setup.home(logits[head])) for head in heads]
        if not kinds:
            return
        counts = torch.stack(kinds).reshape(-1)
        if wait:
            self.sources.logits(heads, counts.cpu().double().numpy())
        else:
            self._keep("logits", counts, heads)

    def _see_rows(
        self,
        log_probs: Mapping[str, Tensor],
        old_log_probs: Mapping[str, Tensor] | None,
        entropy: Mapping[str, Tensor] | None,
        active: Mapping[str, Tensor] | None,
        learnable: Mapping[str, Tensor] | None,
        valid: Tensor | None,
    ) -> None:
        setup = self._setup
        reported = (
            tuple(log_probs),
            tuple(old_log_probs or ()),
            tuple(entropy or ()),
            active is not None,
            learnable is not None,
            valid is not None,
        )
        rows = self._rows.get(reported)
        if rows is None:
            given = policy.given_of(setup.heads, *reported)
            rows = self._rows[reported] = Rows(given, setup.at_once)
        heads = rows.given.heads
        values = policy.stack_values(rows.given, log_probs, old_log_probs or {}, entropy or {})
        if values is None:
            return
        values = setup.home(values)
        # Of what few operations the loop uses too: one that it does not is not in the cache.
        if setup.at_once and not math.isfinite(values.sum().item()):
            seen = None if valid is None else setup.home(valid).reshape(-1).bool()
            nan, inf = policy.nonfinite(values, len(heads), seen)
            self.sources.log_probs(heads, nan, inf)
        if (self._minibatches - 1) % setup.sample_minibatches:
            return
        flags = None
        if not (active is None and learnable is None and valid is None):
            flags = setup.home(policy.stack_flags(heads, active, learnable, valid))
            if flags.shape[1] != values.shape[1]:
                raise ValueError(f"{flags.shape[1]} flags for {values.shape[1]} steps")
        rows.add(values, flags)
        if rows.size > policy.MOST_VALUES:
            self._keep("minibatch", rows.measured(setup.clip_ratio), rows.given)

    def set(self, **fields: Any) -> None:
        """Fields of a policy update that the loop knows itself, by their name in the contract:
        ``entropy_coef``, ``early_stop_epoch``, ``op_q_values``, ``lstm_h_rms`` … A tensor with one
        number is read when the update has reached the host."""
        for name, value in fields.items():
            if isinstance(value, Tensor):
                with self.guarded():
                    self._keep("field", value.reshape(1), name)
            else:
                self.reported[name] = value

    def set_by_head(self, field: str, heads: Sequence[str], totals: Tensor, counts: Tensor) -> None:
        """A field that maps heads to means: totals over counts, both (heads,). A head without a
        count has none."""
        with self.guarded():
            rows = torch.cat([totals.double(), counts.double()])
            self._keep("by_head", rows, (field, tuple(heads)))

    def set_from(self, vector: Tensor, fields: Callable[[Array], Mapping[str, Any]]) -> None:
        """Fields that ``fields`` makes of a vector, (n,) float64, once it has reached the host."""
        with self.guarded():
            self._keep("fields", vector.double(), fields)

    def resolve(self, piece: Piece, values: Array) -> None:
        """Note a field that reached the host."""
        if piece.kind == "field":
            self.reported[piece.about] = float(values[0])
        elif piece.kind == "fields":
            self.reported |= piece.about(values)
        elif piece.kind == "by_head":
            field, heads = piece.about
            totals, counts = values.reshape(2, -1).tolist()
            self.reported[field] = {
                head: total / count
                for head, total, count in zip(heads, totals, counts, strict=True)
                if count
            }

    def skip(self) -> None:
        """The update is not carried out: it counts as skipped, and its latches stay lit."""
        self.skipped = True

    # -- for the probe -----------------------------------------------------------------------

    def guarded(self) -> Guarded:
        """Count an error inside, and let the training continue."""
        return Guarded(self._setup.failed)

    def measure_rows(self) -> None:
        """Measure the minibatches that were stacked so far."""
        for rows in self._rows.values():
            with self.guarded():
                if rows.size:
                    measured = rows.measured(self._setup.clip_ratio)
                    self._keep("minibatch", measured, rows.given)

    def saw_gradients(self, clipped: Clipped, part: Part) -> None:
        """The norms before clipping; the gradients are as yet unchanged. With a loss scale, Inf is
        an overflow that the scaler deals with, and no fault."""
        norms = clipped.norms
        if not self._setup.at_once:
            self._keep("gradients", torch.cat([clipped.total.reshape(1).to(norms), norms]), part)
            return
        piece = Piece("gradients", self._setup.home(norms), part)
        self.pieces.append(piece)
        part.total = clipped.total.item()
        finite = math.isfinite(part.total)
        if finite and clipped.covers:
            return  # so is every norm, and the host needs none before the update ends
        values = _on_host(piece)
        if not finite:
            for found in look_closer(clipped, np.flatnonzero(~np.isfinite(values[1:])).tolist()):
                place = 1 + clipped.indices.index(found.index)
                values[place] = math.nan if found.nan else found.norm
        self.sources.look(piece, values)

    def arrays(self) -> list[Array]:
        """The vectors on the host, where it need not wait for them."""
        return [piece.values if piece.vector is None else _on_host(piece) for piece in self.pieces]

    def saw_weights(self, norms: Tensor, weights: Sequence[Tensor]) -> None:
        """The norm of each parameter tensor after the update."""
        if self._setup.at_once and not math.isfinite(float(norms.sum())):
            norms = self._setup.home(norms).double()
            host = norms.numpy()
            for place in np.flatnonzero(~np.isfinite(host)).tolist():
                weight = weights[place]
                nan = bool(weight.isnan().any())
                host[place] = math.nan if nan else float(weight.double().norm())
        self._keep("weights", norms)

    def saw_scale(self, scale: Tensor) -> None:
        """The AMP loss scale as it is now."""
        self._keep("scale", scale.detach().clone().reshape(1))

    def keep(self, kind: str, vector: Tensor) -> None:
        """Keep a vector until the update ends."""
        self._keep(kind, vector)

    def _keep(self, kind: str, vector: Tensor | Array, about: Any = None) -> None:
        if isinstance(vector, Tensor):
            vector = self._setup.home(vector)
            if not self._setup.at_once:
                self.pieces.append(Piece(kind, vector, about))
                return
            # A copy: what the loop gave may change before the update ends.
            vector = vector.to(torch.float64, copy=True).numpy()
        piece = Piece(kind, None, about, vector)
        self.pieces.append(piece)
        self.sources.look(piece, vector)

    def _report_nonfinite(self, detail: str) -> None:
        self._setup.report(detail, self)

    def steps(self, arrays: list[tuple[Piece, Array]], limit: float | None) -> list[Step]:
        """The optimizer steps among the vectors. ``limit`` is what the loop says it clips to."""
        found: dict[int, Step] = {}
        for piece, values in arrays:
            if piece.kind == "gradients":
                step = found.setdefault(piece.about.step, Step())
                step.add(piece.about, float(values[0]), values[1:], limit)
        return list(found.values())


def _on_host(piece: Piece) -> Array:
    """A measurement of gradients that the host can read: the total, then each norm."""
    norms = piece.vector
    assert norms is not None
    values = piece.values = np.empty(1 + norms.numel())
    values[0] = piece.about.total
    # numpy has no bfloat16.
    values[1:] = norms.numpy() if norms.dtype is torch.float32 else norms.double().numpy()
    piece.vector = None
    return values
