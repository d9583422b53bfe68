"""Proximal policy optimization of the recurrent policy, measured by the probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from esper_exporter import PolicyProbe
from esper_exporter.contract.vocabulary import HEAD_ENTROPY_COEFFICIENTS
from esper_exporter.demo.episode_batch import Rollout
from esper_exporter.demo.faults import Faults
from esper_exporter.demo.loop_fields import memory_health, of_the_rollout
from esper_exporter.demo.policy_network import Outputs, Policy, causal_masks, log_prob_and_entropy

EPOCHS, MINIBATCHES = 3, 2
GAMMA, LAMBDA = 0.995, 0.95
CLIP = 0.2
MAX_GRAD_NORM = 0.5
LEARNING_RATE = 3e-3
VALUE_WEIGHT, Q_WEIGHT, ENTROPY_WEIGHT = 0.25, 0.1, 0.08
SMALLEST_STD = 1e-6
"""Advantages with a smaller spread are not scaled up to a standard deviation of 1."""

_MOST_SKIPPED_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Learned:
    """One update: whether it was carried out, and the mean entropy of the heads that had a
    choice, as a share of the largest possible (NaN if no minibatch was finite)."""

    carried_out: bool
    entropy: float


def advantages(rewards: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates of episodes (T, E) that end with their last step, and the
    TD errors that they are made of."""
    after = torch.cat([values[1:], torch.zeros_like(values[:1])])
    errors = rewards + GAMMA * after - values
    found, later = torch.empty_like(errors), torch.zeros_like(errors[0])
    for step in reversed(range(len(errors))):
        found[step] = later = errors[step] + GAMMA * LAMBDA * later
    return found, errors


class Learner:
    """Updates the policy; skips an update without any finite minibatch."""

    def __init__(
        self,
        policy: Policy,
        evaluate: Callable[..., Outputs],
        probe: PolicyProbe,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        autocast: Callable[[], AbstractContextManager[Any]],
        faults: Faults,
        generator: torch.Generator,
    ) -> None:
        self._policy = policy
        self._evaluate = evaluate
        self._probe = probe
        self._optimizer = optimizer
        self._scaler = scaler
        self._autocast = autocast
        self._faults = faults
        self._generator = generator
        self._skipped_in_a_row = 0

    def update(self, batch: int, rollout: Rollout) -> Learned:
        """Learn from a rollout. Raises FloatingPointError at the third skipped update in a row."""
        raw, errors = advantages(rollout.rewards, rollout.values)
        returns, spread = raw + rollout.values, float(raw.std())
        floored = not spread > SMALLEST_STD
        scaled = (raw - raw.mean()) / (SMALLEST_STD if floored else spread)
        environments = rollout.rewards.shape[1]
        steps, entropies = 0, []
        with self._probe.update(batch=batch) as update:
            self._faults.in_update()
            update.rollout(
                values=rollout.values,
                returns=returns,
                advantages=scaled,
                raw_advantages=raw,
                td_errors=errors,
                actions=rollout.actions,
            )
            for _ in range(EPOCHS):
                order = torch.randperm(environments, generator=self._generator)
                for chosen in order.chunk(MINIBATCHES):
                    entropy = self._minibatch(
                        update, rollout, scaled, returns, chosen.to(raw.device)
                    )
                    if entropy is not None:
                        steps += 1
                        entropies.append(entropy)
            if steps == 0:
                update.skip()
            update.set(
                entropy_coef=ENTROPY_WEIGHT,
                advantage_std_floored=floored,
                **of_the_rollout(rollout),
            )
        self._skipped_in_a_row = 0 if steps else self._skipped_in_a_row + 1
        if self._skipped_in_a_row == _MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"{_MOST_SKIPPED_IN_A_ROW} policy updates in a row were not finite"
            )
        return Learned(steps > 0, sum(entropies) / len(entropies) if entropies else math.nan)

    def _minibatch(
        self, update: Any, rollout: Rollout, scaled: Tensor, returns: Tensor, chosen: Tensor
    ) -> float | None:
        """One optimizer step, on the episodes of some environments; the mean entropy, or None if
        the step was not made because something was not finite."""
        ops = rollout.actions["op"][:, chosen]
        legal_ops, legal_slots = rollout.legal_ops[:, chosen], rollout.legal_slots[:, chosen]
        active, learnable = causal_masks(self._policy, ops, legal_ops, legal_slots)
        old = {head: log_probs[:, chosen] for head, log_probs in rollout.log_probs.items()}
        with self._probe.phase("forward"), self._autocast():
            outputs = self._evaluate(rollout.observations[:, chosen], ops, legal_ops, legal_slots)
            found = {
                head: log_prob_and_entropy(outputs.logits[head], actions[:, chosen])
                for head, actions in rollout.actions.items()
            }
            new = {head: log_prob for head, (log_prob, _) in found.items()}
            entropies = {head: entropy for head, (_, entropy) in found.items()}
            self._faults.in_log_probs(new)
            # A product, not a where(): any nonfinite value must reach the sum.
            log_ratio = torch.stack([(new[h] - old[h]) * active[h] for h in new]).sum(0)
            advantage, ratio = scaled[:, chosen], log_ratio.exp()
            bounded = ratio.clamp(1.0 - CLIP, 1.0 + CLIP)
            policy_loss = -torch.minimum(advantage * ratio, advantage * bounded).mean()
            value_loss = 0.5 * (outputs.value - returns[:, chosen]).square().mean()
            q_done = outputs.q.gather(-1, ops[..., None]).squeeze(-1)
            q_loss = 0.5 * (q_done - returns[:, chosen]).square().mean()
            shares = self._entropy_shares(entropies, learnable)
            weighted = sum(HEAD_ENTROPY_COEFFICIENTS[h] * share for h, share in shares.items())
            entropy_loss = -ENTROPY_WEIGHT * torch.as_tensor(weighted, dtype=torch.float32)
            loss = policy_loss + VALUE_WEIGHT * value_loss + Q_WEIGHT * q_loss + entropy_loss
        update.minibatch(
            log_probs=new,
            old_log_probs=old,
            entropy=entropies,
            active=active,
            learnable=learnable,
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy_loss=entropy_loss,
        )
        update.set(q_aux_loss=float(q_loss.detach()), **memory_health("lstm", outputs.state))
        if not bool(loss.isfinite()):
            return None
        self._optimizer.zero_grad()
        with self._probe.phase("backward"):
            self._scaler.scale(self._faults.in_loss(loss)).backward()
            self._scaler.unscale_(self._optimizer)
        self._faults.in_gradients(self._policy.parameters())
        norm = self._probe.clip_grad_norm_()
        finite = bool(norm.isfinite())
        with self._probe.phase("optimizer"):
            if finite or self._scaler.is_enabled():
                # The scaler skips such a step itself, and must see it to lower its scale.
                self._scaler.step(self._optimizer)
                self._scaler.update()
        if not finite:
            return None
        return float(torch.stack(list(shares.values())).detach().mean()) if shares else math.nan

    def _entropy_shares(
        self, entropies: Mapping[str, Tensor], learnable: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Head → mean entropy where there was a choice, as a share of the largest possible."""
        return {
            head: (entropy * learnable[head]).sum()
            / learnable[head].sum()
            / math.log(self._policy.choices[head])
            for head, entropy in entropies.items()
            if bool(learnable[head].any())
        }
