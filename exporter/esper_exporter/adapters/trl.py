"""TRL: measures GRPO and similar trainers, whose policy is a language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback  # type: ignore[import-not-found]

from esper_exporter.exporter import Exporter
from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate

HEAD = "token"
LOGPS = "_get_per_token_logps_and_entropies"


def attach(
    trainer: Any, exporter: Exporter | None = None, *, every: int = 10, **settings: Any
) -> Exporter:
    """Measure a trainer: ``attach(trainer)`` before ``trainer.train()``; returns the exporter.

    Without ``exporter`` one is made with ``settings`` and started. There is no critic, so no value
    loss; an update is one optimizer step, over all its accumulated batches. The policy's one head
    is ``token``, whose choices are the vocabulary.
    """
    own = exporter is None
    if exporter is None:
        exporter = Exporter(**settings)
        exporter.start()
    trainer.add_callback(_Measures(trainer, exporter, every, own))
    return exporter


class _Measures(TrainerCallback):  # type: ignore[misc]
    """The trainer's callback."""

    def __init__(self, trainer: Any, exporter: Exporter, every: int, own: bool) -> None:
        self._trainer = trainer
        self._exporter = exporter
        self._every = every
        self._own = own
        self._probe: PolicyProbe | None = None
        self._update: PolicyUpdate | None = None
        self._per_token: tuple[Tensor, Tensor | None] | None = None
        self._advantages: list[Tensor] = []
        """Those of the accumulated batches."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The model and its optimizer are ready."""
        trainer = self._trainer
        model = more.get("model") or trainer.model
        epsilon = getattr(args, "epsilon", None)
        self._probe = PolicyProbe(
            model,
            self._exporter,
            heads={HEAD: int(model.config.vocab_size)},
            optimizer=more.get("optimizer"),
            max_grad_norm=args.max_grad_norm or None,
            clip_ratio=float(epsilon) if epsilon else 0.2,
            every=self._every,
        )
        self._probe.training_started(task=type(trainer).__name__)
        compute_loss = trainer.compute_loss
        per_token: Any = getattr(trainer, LOGPS, None)

        def measured_loss(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            self._per_token = None
            loss = compute_loss(model, inputs, *given, **named)
            if self._update is not None:
                with self._update.guarded():
                    self._see(self._update, inputs, loss)
            return loss

        def measured_logps(*given: Any, **named: Any) -> Any:
            found = per_token(*given, **named)
            if self._update is not None and isinstance(found, tuple):
                self._per_token = found[0], found[1]
            return found

        trainer.compute_loss = measured_loss
        if per_token is not None:
            setattr(trainer, LOGPS, measured_logps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The first of the batches whose gradients are accumulated."""
        if self._probe is not None:
            self._advantages = []
            self._update = self._probe.update().begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The optimizer's step was made."""
        if self._update is not None:
            if self._advantages:
                with self._update.guarded():
                    self._update.rollout(advantages=torch.cat(self._advantages))
            self._update.end()
            self._update = None

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Put the trainer's functions back."""
        for name in ("compute_loss", LOGPS):
            vars(self._trainer).pop(name, None)
        if self._probe is not None:
            self._probe.close()
        if self._own:
            self._exporter.close()

    def _see(self, update: PolicyUpdate, inputs: Any, loss: Any) -> None:
        loss = loss[0] if isinstance(loss, tuple) else loss
        if not isinstance(inputs, dict) or self._per_token is None:
            update.minibatch(policy_loss=loss.detach())
            return
        logps, entropies = self._per_token
        advantages = inputs.get("advantages")
        if advantages is not None:
            self._advantages.append(advantages.detach().reshape(-1))
        old = inputs.get("old_per_token_logps")
        update.minibatch(
            log_probs={HEAD: logps.detach()},
            old_log_probs=None if old is None else {HEAD: old},
            entropy=None if entropies is None else {HEAD: entropies.detach()},
            policy_loss=loss.detach(),
            valid=inputs.get("completion_mask"),
        )
