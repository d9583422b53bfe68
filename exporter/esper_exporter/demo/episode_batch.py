"""A batch of episodes: the policy acts in all environments in parallel and emits each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper_exporter.contract.vocabulary import OPS, TEMPOS
from esper_exporter.demo.actions import MATTERS, Action
from esper_exporter.demo.observation import statistics
from esper_exporter.demo.policy_network import Policy, State, log_prob_and_entropy
from esper_exporter.demo.profile import Profile
from esper_exporter.demo.seeds import TARGETS
from esper_exporter.demo.stream import Stream
from esper_exporter.demo.training_environment import Environment


@dataclass(frozen=True, slots=True)
class Rollout:
    """Whole episodes: steps by environments (T, E), some fields also by head.

    ``legal_slots`` are those of the chosen operation; ``q`` and ``legal_ops`` have the operations
    as a further axis. ``memory`` is the LSTM's state after the last step.
    """

    observations: Tensor
    actions: dict[str, Tensor]
    log_probs: dict[str, Tensor]
    legal_ops: Tensor
    legal_slots: Tensor
    values: Tensor
    q: Tensor
    rewards: Tensor
    memory: State


@dataclass(frozen=True, slots=True)
class _Decision:
    """One step of all environments; tensors are (1, E) or by head."""

    observations: Tensor
    actions: dict[str, Tensor]
    logits: dict[str, Tensor]
    log_probs: dict[str, Tensor]
    entropies: dict[str, Tensor]
    legal_ops: Tensor
    legal_slots: Tensor
    values: Tensor
    q: Tensor


class Collector:
    """Lets the policy act, with a separate generator, so that a seed gives the same actions."""

    def __init__(
        self,
        policy: Policy,
        environments: Sequence[Environment],
        choices: Mapping[str, Sequence[str]],
        stream: Stream,
        profile: Profile,
        autocast: Callable[[], AbstractContextManager[Any]],
        generator: torch.Generator,
    ) -> None:
        self._policy = policy
        self._environments = environments
        self._choices = choices
        self._stream = stream
        self._profile = profile
        self._autocast = autocast
        self._generator = generator
        self._device = next(policy.parameters()).device

    def collect(self, horizon: int) -> Rollout:
        """One episode in every environment."""
        decisions, rewards = [], []
        state = self._policy.begin(len(self._environments))
        for _ in range(horizon):
            with self._profile.time("action"):
                decision, state = self._decide(state)
            decisions.append(decision)
            rewards.append([float(r["total_reward"]) for r in self._act(decision)])

        heads = self._choices
        return Rollout(
            observations=torch.cat([d.observations for d in decisions]),
            actions={head: torch.cat([d.actions[head] for d in decisions]) for head in heads},
            log_probs={head: torch.cat([d.log_probs[head] for d in decisions]) for head in heads},
            legal_ops=torch.cat([d.legal_ops for d in decisions]),
            legal_slots=torch.cat([d.legal_slots for d in decisions]),
            values=torch.cat([d.values for d in decisions]),
            q=torch.cat([d.q for d in decisions]),
            rewards=torch.tensor(rewards, device=self._device),
            memory=state,
        )

    @torch.no_grad()
    def _decide(self, state: State) -> tuple[_Decision, State]:
        policy, device = self._policy, self._device
        seen = np.stack([environment.observe() for environment in self._environments])
        legal = [environment.legal() for environment in self._environments]
        observations = torch.from_numpy(seen).to(device)[None]
        legal_ops = torch.tensor([each.ops for each in legal], device=device)[None]
        slots = torch.tensor([each.slots for each in legal], device=device)
        with self._autocast():
            hidden, state = policy.remember(observations, state)
            logits = {"op": policy.op_logits(hidden, legal_ops)}
            actions = {"op": self._sample(logits["op"])}
            legal_slots = slots[torch.arange(len(legal), device=device), actions["op"][0]][None]
            logits |= policy.other_logits(hidden, actions["op"], legal_slots)
            values = policy.critic(hidden).squeeze(-1).float()
            q = policy.q(hidden).float()
        actions |= {head: self._sample(logits[head]) for head in logits if head != "op"}
        found = {head: log_prob_and_entropy(logits[head], actions[head]) for head in logits}
        decision = _Decision(
            observations,
            actions,
            logits,
            {head: log_prob for head, (log_prob, _) in found.items()},
            {head: entropy for head, (_, entropy) in found.items()},
            legal_ops,
            legal_slots,
            values,
            q,
        )
        return decision, state

    def _sample(self, logits: Tensor) -> Tensor:
        chances = logits.softmax(-1).flatten(0, -2).cpu()
        drawn = torch.multinomial(chances, 1, generator=self._generator)
        return drawn.reshape(logits.shape[:-1]).to(logits.device)

    def _act(self, decision: _Decision) -> list[dict[str, Any]]:
        """Carry out the decisions and emit them; returns the rewards' components."""
        chosen = {head: drawn[0].tolist() for head, drawn in decision.actions.items()}
        confidence = {head: lp[0].exp().tolist() for head, lp in decision.log_probs.items()}
        entropy = {
            head: _shares(nats[0], len(self._choices[head])).tolist()
            for head, nats in decision.entropies.items()
        }
        op_chances = decision.logits["op"][0].softmax(-1).tolist()
        values = decision.values[0].tolist()
        health = statistics(list(decision.observations[0].cpu().numpy()))
        rewards = []
        for place, environment in enumerate(self._environments):
            words = {head: self._choices[head][drawn[place]] for head, drawn in chosen.items()}
            slot_states = environment.slot_states()
            reward = environment.step(Action(**words))
            rewards.append(reward)
            self._stream.record(
                "ANALYTICS_SNAPSHOT",
                {
                    "kind": "last_action",
                    "env_id": environment.env_id,
                    "episode_idx": environment.episode,
                    "total_reward": reward["total_reward"],
                    "action_name": words["op"],
                    "action_confidence": confidence["op"][place],
                    "head_telemetry": {
                        _field_name(head, what): values_of[head][place]
                        for what, values_of in (("confidence", confidence), ("entropy", entropy))
                        for head in self._choices
                    },
                    "value_estimate": values[place],
                    "slot_id": words["slot"],
                    **_choice_fields(words),
                    "action_success": reward["action_success"],
                    "reward_components": reward,
                    "slot_states": slot_states,
                    "alternatives": _alternatives(op_chances[place], words["op"]),
                    "decision_entropy": float(decision.entropies["op"][0, place]),
                    **({"observation_stats": health} if place == 0 else {}),
                },
                epoch=environment.epoch,
                severity="debug",
            )
        return rewards


def _shares(nats: Tensor, choices: int) -> Tensor:
    """Entropies as shares of the maximum; 0 without a choice."""
    return nats / np.log(choices) if choices > 1 else torch.zeros_like(nats)


def _choice_fields(words: Mapping[str, str]) -> dict[str, Any]:
    """The heads' choices; None and masked for heads that the operation does not use."""
    said = {head: word for head, word in words.items() if words["op"] in MATTERS[head]}
    tempo, target = said.get("tempo"), said.get("alpha_target")
    return {
        "blueprint_id": said.get("blueprint"),
        "style": said.get("style"),
        "tempo_idx": None if tempo is None else TEMPOS.index(tempo),
        "alpha_target": None if target is None else TARGETS[target],
        "alpha_speed": said.get("alpha_speed"),
        "alpha_curve": said.get("alpha_curve"),
        **{f"{head}_masked": head not in said for head in words},
    }


def _field_name(head: str, what: str) -> str:
    """The field's name in decisions, where the contract shortens one head's name."""
    return f"{'curve' if head == 'alpha_curve' else head}_{what}"


def _alternatives(chances: Sequence[float], done: str) -> list[tuple[str, float]]:
    """The two most likely operations besides the chosen one."""
    others = [(op, chance) for op, chance in zip(OPS, chances, strict=True) if op != done]
    return sorted(others, key=lambda each: -each[1])[:2]
