"""Stable-Baselines3: a callback that measures every ``train()`` of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback  # type: ignore[import-not-found]
from torch import Tensor

from esper_exporter.exporter import Exporter
from esper_exporter.probes.torch.action_heads import Heads
from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate

_LOSSES = {
    "policy_loss": ("train/policy_gradient_loss", "train/policy_loss", "train/actor_loss"),
    "value_loss": ("train/value_loss", "train/critic_loss", "train/loss"),
    "entropy_loss": ("train/entropy_loss",),
}
"""Where the algorithms log their losses; DQN's ``train/loss`` is that of its values."""


class EsperCallback(BaseCallback):  # type: ignore[misc]
    """Measures a model's updates: ``model.learn(10_000, callback=EsperCallback())``.

    ``exporter`` is the one to report to; without one the callback makes an `Exporter` with
    ``settings`` and closes it at the end of training. PPO and A2C are measured whole: each
    dimension of a MultiDiscrete action space is a separate head. Of other algorithms gradients,
    weights and losses are.
    """

    def __init__(self, exporter: Exporter | None = None, *, every: int = 10, **settings: Any):
        super().__init__()
        self._own = exporter is None
        self._settings = settings
        self.exporter = exporter
        self._every = every
        self._probe: PolicyProbe | None = None
        self._update: PolicyUpdate | None = None
        self._heads: Heads = {}
        self._old: dict[str, Tensor] = {}
        self._chosen: Any = None
        self._spread: Any = None

    def _on_training_start(self) -> None:
        if self.exporter is None:
            self.exporter = Exporter(**self._settings)
            self.exporter.start()
        model = self.model
        self._heads = heads_of(model.action_space)
        clip = getattr(model, "clip_range", None)
        self._probe = PolicyProbe(
            model.policy,
            self.exporter,
            heads=self._heads,
            optimizer=getattr(model.policy, "optimizer", None),
            max_grad_norm=getattr(model, "max_grad_norm", None),
            clip_ratio=float(clip(1.0)) if callable(clip) else 0.2,
            every=self._every,
        )
        self._probe.training_started(task=type(model).__name__, n_envs=model.n_envs)
        train = model.train

        def measured_train(*args: Any, **more: Any) -> Any:
            with self._measured(model):
                return train(*args, **more)

        model.train = measured_train

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.model.__dict__.pop("train", None)
        if self._probe is not None:
            self._probe.close()
        if self._own and self.exporter is not None:
            self.exporter.close()

    @contextmanager
    def _measured(self, model: Any) -> Iterator[None]:
        assert self._probe is not None
        policy, buffer = model.policy, getattr(model, "rollout_buffer", None)
        replaced: list[tuple[Any, str]] = []
        with self._probe.update() as update:
            self._update = update
            with update.guarded():
                if buffer is not None and hasattr(policy, "evaluate_actions"):
                    self._see_rollout(update, policy, buffer)
                    for owner, name, wrap in (
                        (policy, "_get_action_dist_from_latent", self._keep_spread),
                        (policy, "evaluate_actions", self._see_minibatch),
                        (buffer, "_get_samples", self._keep_chosen),
                    ):
                        setattr(owner, name, wrap(getattr(owner, name)))
                        replaced.append((owner, name))
            try:
                yield
            finally:
                for owner, name in replaced:
                    vars(owner).pop(name, None)
                self._see_losses(update, model)
                self._update = self._spread = self._chosen = None
                self._old = {}

    def _see_rollout(self, update: PolicyUpdate, policy: Any, buffer: Any) -> None:
        flat = {
            "values": torch.as_tensor(buffer.values),
            "returns": torch.as_tensor(buffer.returns),
            "raw_advantages": torch.as_tensor(buffer.advantages),
        }
        update.rollout(**flat)
        if buffer.generator_ready or type(buffer).__name__ != "RolloutBuffer":
            return
        # The policy has not learnt since it acted: these are the probabilities it acted with,
        # dimension by dimension. The buffer has their product only.
        swap = buffer.swap_and_flatten
        observations = torch.as_tensor(swap(buffer.observations)).to(policy.device)
        actions = torch.as_tensor(swap(buffer.actions)).to(policy.device)
        training = policy.training
        policy.set_training_mode(False)
        try:
            spread = policy.get_distribution(observations)
            self._old = self._by_head(spread, actions)[0]
        finally:
            policy.set_training_mode(training)
        update.rollout(
            actions={
                head: actions.reshape(len(actions), -1)[:, place].long()
                for place, (head, choices) in enumerate(self._heads.items())
                if choices is not None
            }
        )

    def _keep_spread(self, original: Any) -> Any:
        def latent_to_distribution(*args: Any, **more: Any) -> Any:
            self._spread = original(*args, **more)
            return self._spread

        return latent_to_distribution

    def _keep_chosen(self, original: Any) -> Any:
        def get_samples(batch_inds: Any, *args: Any, **more: Any) -> Any:
            self._chosen = batch_inds
            return original(batch_inds, *args, **more)

        return get_samples

    def _see_minibatch(self, original: Any) -> Any:
        def evaluate_actions(observations: Any, actions: Tensor) -> Any:
            result = original(observations, actions)
            update = self._update
            if update is not None and self._spread is not None:
                with update.guarded():
                    log_probs, entropy = self._by_head(self._spread, actions)
                    old = None
                    if self._old and self._chosen is not None:
                        chosen = torch.as_tensor(self._chosen)
                        old = {head: rows[chosen] for head, rows in self._old.items()}
                    update.minibatch(log_probs=log_probs, old_log_probs=old, entropy=entropy)
            return result

        return evaluate_actions

    def _by_head(self, spread: Any, actions: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Log-probabilities of the actions and entropies, (steps,) by head."""
        inner = spread.distribution
        if not isinstance(inner, list):
            chosen = actions.long().reshape(-1) if self._choices_of_one() else actions
            head = next(iter(self._heads))
            entropy = spread.entropy()
            found = {} if entropy is None else {head: entropy.detach()}
            return {head: spread.log_prob(chosen).detach()}, found
        columns = actions.reshape(len(actions), -1).unbind(1)
        log_probs, entropies = {}, {}
        for head, one, column in zip(self._heads, inner, columns, strict=True):
            log_probs[head] = one.log_prob(column).detach()
            entropies[head] = one.entropy().detach()
        return log_probs, entropies

    def _choices_of_one(self) -> bool:
        return next(iter(self._heads.values())) is not None

    @staticmethod
    def _see_losses(update: PolicyUpdate, model: Any) -> None:
        logged = model.logger.name_to_value
        found = {
            loss: float(logged[name])
            for loss, names in _LOSSES.items()
            for name in names[:1] + tuple(n for n in names[1:] if names[0] not in logged)
            if name in logged
        }
        if "policy_loss" in found or "value_loss" in found:
            update.minibatch(
                policy_loss=found.get("policy_loss"),
                value_loss=found.get("value_loss"),
                entropy_loss=found.get("entropy_loss"),
            )


def heads_of(space: Any) -> dict[str, int | None]:
    """A head for each dimension that chooses; one continuous head for a Box."""
    kind = type(space).__name__
    if kind == "Discrete":
        return {"action": int(space.n)}
    if kind == "MultiDiscrete":
        return {f"action_{i}": int(n) for i, n in enumerate(space.nvec.reshape(-1))}
    return {"action": None}
