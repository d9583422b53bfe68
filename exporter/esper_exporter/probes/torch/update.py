"""One policy update while it runs: what the loop hands over, as vectors that wait on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_exporter.probes.torch import minibatch as policy
from esper_exporter.probes.torch import rollout as sample
from esper_exporter.probes.torch.gradient_fields import Step
from esper_exporter.probes.torch.gradients import Clipped, look_closer
from esper_exporter.probes.torch.nonfinite_report import Findings, Tell

Array = np.ndarray[Any, np.dtype[np.float64]]
Found = Iterator[tuple[str, str | None, str]]

_LOSSES = ("policy_loss", "value_loss", "entropy_loss")


@dataclass(slots=True)
class Piece:
    """One vector of an update: what it is, and what the host needs to know to read it."""

    kind: str
    vector: Tensor
    about: Any = None


class PolicyUpdate:
    """One policy update, as ``PolicyProbe.update`` gives it. Nothing here raises.

    Tensors may have any shape, the same for all of a call, and any floating-point type; they are
    read, never kept and never changed.
    """

    def __init__(
        self,
        heads: Mapping[str, int],
        clip_ratio: float,
        at_once: bool,
        tell: Tell,
        failed: Callable[[], None],
        *,
        batch: int,
        index: int,
        closely: bool,
    ) -> None:
        self.batch = batch
        self.index = index
        """Number of the update within its batch: 1, 2, 3 …"""
        self.closely = closely
        """Whether this update measures the medium-overhead fields too."""
        self.skipped = False
        self.has_entropy_loss = False
        self.pieces: list[Piece] = []
        self.told: dict[str, Any] = {}
        self.findings = Findings(tell)
        self.begun = time.perf_counter()
        self._heads = heads
        self._clip_ratio = clip_ratio
        self._at_once = at_once
        self._failed = failed

    def rollout(
        self,
        *,
        values: Tensor,
        returns: Tensor,
        advantages: Tensor | None = None,
        raw_advantages: Tensor | None = None,
        td_errors: Tensor | None = None,
        actions: Mapping[str, Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """The rollout that this update learns from, once per update.

        ``values`` and ``returns`` are the critic's estimates and their targets, ``advantages`` as
        they are used (normalised), ``raw_advantages`` before that, ``td_errors`` those of GAE,
        ``actions`` the choices by head, ``valid`` False where a step is padding.
        """
        with self.guarded():
            if values.numel() == 0:
                return
            seen = None if valid is None else valid.detach().reshape(-1).bool()
            told = {
                "values": values,
                "returns": returns,
                "advantages": advantages,
                "raw_advantages": raw_advantages,
                "td_errors": td_errors,
            }
            flat = {
                kind: tensor.detach().reshape(-1).double()
                for kind, tensor in told.items()
                if tensor is not None
            }
            flat["errors"] = flat["values"] - flat["returns"]
            for kind, row in zip(
                flat, sample.moments(torch.stack(list(flat.values())), seen).unbind(), strict=True
            ):
                self._keep(kind, row)
            self._keep("quantiles", sample.quantiles(returns, seen))
            self._keep("covariance", sample.covariance(values, returns, seen))
            if actions:
                choices = {head: n for head, n in self._heads.items() if head in actions}
                self._keep("action_mix", sample.action_mix(actions, choices, seen))
                if "op" in choices:
                    self._keep("ops", sample.shares(actions["op"], choices["op"], seen))

    def minibatch(
        self,
        *,
        log_probs: Mapping[str, Tensor],
        old_log_probs: Mapping[str, Tensor],
        entropy: Mapping[str, Tensor],
        policy_loss: Tensor,
        value_loss: Tensor,
        entropy_loss: Tensor | None = None,
        active: Mapping[str, Tensor] | None = None,
        learnable: Mapping[str, Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """One minibatch, after the forward pass and before the backward one.

        By head: the log-probabilities of the actions taken, now and when they were taken (nats),
        and the entropies (nats). ``active`` is True where the head mattered for what was done,
        ``learnable`` where it had more than one legal choice (default: everywhere), ``valid``
        False where a step is padding. Losses are scalars.
        """
        with self.guarded():
            steps = policy.steps_of(
                tuple(self._heads), log_probs, old_log_probs, entropy, active, learnable, valid
            )
            if steps.log_probs.numel() == 0:
                return
            losses = (policy_loss, value_loss, value_loss if entropy_loss is None else entropy_loss)
            self.has_entropy_loss = entropy_loss is not None
            self._keep("minibatch", policy.measure(steps, self._clip_ratio, losses))

    def set(self, **fields: Any) -> None:
        """Fields of a policy update that the loop knows itself, by their name in the contract:
        ``entropy_coef``, ``early_stop_epoch``, ``op_q_values``, ``lstm_h_rms`` …"""
        self.told.update(fields)

    def skip(self) -> None:
        """The update is not carried out: it counts as skipped, and its latches stay lit."""
        self.skipped = True

    # -- for the probe -----------------------------------------------------------------------

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Count what fails inside, and let the training go on."""
        try:
            with torch.no_grad():
                yield
        except Exception:
            self._failed()

    def saw_gradients(self, clipped: Clipped, max_norm: float | None, scaled: bool) -> None:
        """The norms before clipping; the gradients are as yet unchanged. With a loss scale, Inf is
        an overflow that the scaler deals with, and no fault."""
        step = (clipped.indices, max_norm, scaled)
        if self._at_once and not math.isfinite(float(clipped.total.float().numpy())):
            norms = clipped.norms.double()
            host = norms.numpy()
            for found in look_closer(clipped, np.flatnonzero(~np.isfinite(host)).tolist()):
                place = clipped.indices.index(found.index)
                host[place] = math.nan if found.nan else found.norm
            total = torch.linalg.vector_norm(norms)
            self._keep("gradients", torch.cat([total.reshape(1), norms]), step)
            return
        total = clipped.total.reshape(1)
        self._keep("gradients", torch.cat([total, clipped.norms]), step)

    def saw_scale(self, scale: Tensor) -> None:
        """The AMP loss scale as it is now."""
        self._keep("scale", scale.detach().clone().reshape(1))

    def keep(self, kind: str, vector: Tensor) -> None:
        """Keep a vector until the update ends."""
        self._keep(kind, vector)

    def _keep(self, kind: str, vector: Tensor, about: Any = None) -> None:
        piece = Piece(kind, vector, about)
        self.pieces.append(piece)
        if self._at_once:
            self.look(piece, vector.detach().double().numpy())

    def look(self, piece: Piece, values: Array) -> None:
        """Note what is not finite in a vector that has reached the host."""
        if piece.kind == "minibatch":
            self.findings.add(self._in_minibatch(values))
        elif piece.kind == "gradients" and not piece.about[2] and not math.isfinite(values[0]):
            self.findings.add(_in_gradients(values[1:]))
        elif piece.kind in ("values", "td_errors") and values[-1]:
            self.findings.add([("values", None, "nan")])

    def _in_minibatch(self, values: Array) -> Found:
        for row, kind in ((-2, "nan"), (-1, "inf")):
            table = values[: -len(policy.JOINT)].reshape(len(policy.PER_HEAD), len(self._heads))
            for head, count in zip(self._heads, table[row], strict=True):
                if count:
                    yield "log_probs", head, kind
        together = dict(zip(policy.JOINT, values[-len(policy.JOINT) :].tolist(), strict=True))
        for name in _LOSSES[:2]:
            if not math.isfinite(together[name]):
                yield "loss", None, "nan" if math.isnan(together[name]) else "inf"
        if together["steps"] and math.isinf(together["ratio_max"]):
            yield "ratio", None, "inf"

    def steps(self, arrays: list[tuple[Piece, Array]]) -> list[Step]:
        """The optimizer steps among the vectors."""
        found = []
        for piece, values in arrays:
            if piece.kind == "gradients":
                indices, max_norm, _ = piece.about
                found.append(Step(float(values[0]), values[1:], indices, max_norm))
        return found


def _in_gradients(norms: Array) -> Found:
    if np.isnan(norms).any():
        yield "gradients", None, "nan"
    if np.isinf(norms).any():
        yield "gradients", None, "inf"
