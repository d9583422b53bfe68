"""The policy: a recurrent network with eight action heads, a value and an op-value head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from esper_exporter.contract.vocabulary import OPS
from esper_exporter.demo.actions import MATTERS

WIDTH = 64
HIDDEN = 32
_ILLEGAL = -1e9

State = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The policy's outputs for a sequence; all (T, E), logits and q with one more axis."""

    logits: dict[str, Tensor]
    value: Tensor
    q: Tensor
    state: State


class Policy(nn.Module):
    """Encoder, LSTM, and a head for each part of the action.

    The operation comes first: the other heads know it. Illegal operations are masked, and slots in
    which the operation is impossible. A head that the operation does not use keeps one choice, its
    first: as in the real system, its log-probability and entropy are then 0.
    """

    def __init__(self, observed: int, choices: Mapping[str, int]) -> None:
        super().__init__()
        self.choices = dict(choices)
        self.encoder = nn.Sequential(nn.Linear(observed, WIDTH), nn.Tanh())
        self.memory = nn.LSTM(WIDTH, WIDTH)
        self.heads = nn.ModuleDict(
            {
                head: nn.Sequential(
                    nn.Linear(WIDTH if head == "op" else WIDTH + len(OPS), HIDDEN),
                    nn.Tanh(),
                    nn.Linear(HIDDEN, count),
                )
                for head, count in choices.items()
            }
        )
        self.critic = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        self.q = nn.Linear(WIDTH, len(OPS))
        for head in choices:
            matters = torch.tensor([op in MATTERS[head] for op in OPS])
            self.register_buffer(f"{head}_matters", matters, persistent=False)
        for head in self.heads.values():
            # Near uniform at first, so that the policy tries every choice.
            head[-1].weight.data.mul_(0.1)

    def begin(self, count: int) -> State:
        """The state of the LSTM before an episode."""
        parameter = next(self.parameters())
        zeros = parameter.new_zeros(1, count, WIDTH)
        return zeros, zeros

    def remember(self, observations: Tensor, state: State) -> tuple[Tensor, State]:
        """The LSTM's output for observations (T, E, F)."""
        seen, (hidden, cell) = self.memory(self.encoder(observations), state)
        return seen, (hidden, cell)

    def op_logits(self, seen: Tensor, legal_ops: Tensor) -> Tensor:
        """Logits of the operations (T, E, ops)."""
        logits: Tensor = self.heads["op"](seen).float()
        return logits.masked_fill(~legal_ops, _ILLEGAL)

    def other_logits(self, seen: Tensor, ops: Tensor, legal_slots: Tensor) -> dict[str, Tensor]:
        """Logits of the other heads, given the operations (T, E) and the slots legal for them."""
        known = torch.cat([seen, functional.one_hot(ops, len(OPS)).to(seen.dtype)], -1)
        logits = {
            head: module(known).float() for head, module in self.heads.items() if head != "op"
        }
        logits["slot"] = logits["slot"].masked_fill(~legal_slots, _ILLEGAL)
        for head, own in logits.items():
            says = getattr(self, f"{head}_matters")[ops]
            first = torch.zeros_like(own).index_fill(-1, ops.new_zeros(1), 1.0).log()
            logits[head] = torch.where(says[..., None], own, first.clamp(min=_ILLEGAL))
        return logits

    def forward(
        self, observations: Tensor, ops: Tensor, legal_ops: Tensor, legal_slots: Tensor
    ) -> Outputs:
        """A whole episode, from its beginning, given the operations that were done."""
        seen, state = self.remember(observations, self.begin(observations.shape[1]))
        logits = {
            "op": self.op_logits(seen, legal_ops),
            **self.other_logits(seen, ops, legal_slots),
        }
        return Outputs(logits, self.critic(seen).squeeze(-1).float(), self.q(seen).float(), state)


def log_prob_and_entropy(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of what was chosen, and entropy, both in nats and without the last axis."""
    log_probs = functional.log_softmax(logits, -1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, chosen[..., None]).squeeze(-1), entropy


def causal_masks(
    policy: Policy, ops: Tensor, legal_ops: Tensor, legal_slots: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Head → the steps whose operation used it, and those in which it also had a choice."""
    active = {head: getattr(policy, f"{head}_matters")[ops] for head in policy.choices}
    learnable = dict(active)
    learnable["op"] = legal_ops.sum(-1) > 1
    learnable["slot"] = active["slot"] & (legal_slots.sum(-1) > 1)
    return active, learnable
