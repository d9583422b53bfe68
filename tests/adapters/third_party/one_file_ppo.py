"""PPO in one file each, as CleanRL writes it: discrete, continuous, and from frames.

What a user adds for the probe are the lines with ``probe`` and ``update``; ``recorder`` is the
tests' second opinion.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

ENVS, STEPS, EPOCHS, MINIBATCHES, UPDATES = 4, 32, 2, 4, 3
GAMMA, LAMBDA, CLIP, MAX_NORM = 0.99, 0.95, 0.2, 0.5
HEADS: dict[str, dict[str, int | None]] = {
    "ppo": {"action": 2},
    "ppo_continuous_action": {"action": None},
    "ppo_atari": {"action": 4},
}


def layer(module: Any, gain: float = np.sqrt(2)) -> Any:
    nn.init.orthogonal_(module.weight, gain)
    nn.init.zeros_(module.bias)
    return module


class Discrete(nn.Module):
    """Two networks, as CleanRL's ppo."""

    def __init__(self, seen: int, choices: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(
            layer(nn.Linear(seen, 64)), nn.Tanh(), layer(nn.Linear(64, 64)), nn.Tanh(),
            layer(nn.Linear(64, 1), 1.0),
        )  # fmt: skip
        self.actor = nn.Sequential(
            layer(nn.Linear(seen, 64)), nn.Tanh(), layer(nn.Linear(64, 64)), nn.Tanh(),
            layer(nn.Linear(64, choices), 0.01),
        )  # fmt: skip

    def value(self, seen: Tensor) -> Tensor:
        return self.critic(seen).flatten()

    def act(self, seen: Tensor) -> Any:
        return Categorical(logits=self.actor(seen))


class Continuous(Discrete):
    """A Gaussian whose deviation does not depend on what is seen."""

    def __init__(self, seen: int, size: int) -> None:
        super().__init__(seen, size)
        self.log_std = nn.Parameter(torch.zeros(1, size))

    def act(self, seen: Tensor) -> Any:
        mean = self.actor(seen)
        return Normal(mean, self.log_std.expand_as(mean).exp())


class Frames(nn.Module):
    """One convolutional network for both, as CleanRL's ppo_atari."""

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            layer(nn.Conv2d(4, 8, 8, stride=4)), nn.ReLU(), layer(nn.Conv2d(8, 16, 4, stride=2)),
            nn.ReLU(), nn.Flatten(), layer(nn.Linear(16 * 3 * 3, 32)), nn.ReLU(),
        )  # fmt: skip
        self.actor, self.critic = layer(nn.Linear(32, choices), 0.01), layer(nn.Linear(32, 1), 1.0)

    def value(self, seen: Tensor) -> Tensor:
        return self.critic(self.network(seen / 255.0)).flatten()

    def act(self, seen: Tensor) -> Any:
        return Categorical(logits=self.actor(self.network(seen / 255.0)))


class Flicker:
    """Stands in for an Atari game: frames of noise, and a reward for the action that they name."""

    def __init__(self) -> None:
        self._draw = np.random.default_rng(1)

    def reset(self) -> Any:
        self._best = self._draw.integers(0, 4, ENVS)
        frames = self._draw.integers(0, 64, (ENVS, 4, 36, 36)).astype(np.float32)
        frames[np.arange(ENVS), self._best] += 128
        return frames

    def step(self, action: Any) -> Any:
        reward = (action == self._best).astype(np.float32)
        return self.reset(), reward, self._draw.random(ENVS) < 0.05


class Gym:
    """Gymnasium's vector environments, in the same words."""

    def __init__(self, name: str) -> None:
        import gymnasium

        self._envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(name)] * ENVS)

    def reset(self) -> Any:
        return self._envs.reset(seed=1)[0].astype(np.float32)

    def step(self, action: Any) -> Any:
        seen, reward, ended, cut, _ = self._envs.step(action)
        return seen.astype(np.float32), reward.astype(np.float32), ended | cut


def make(kind: str) -> tuple[Any, Any]:
    torch.manual_seed(1)
    if kind == "ppo":
        return Gym("CartPole-v1"), Discrete(4, 2)
    if kind == "ppo_continuous_action":
        return Gym("Pendulum-v1"), Continuous(3, 1)
    return Flicker(), Frames(4)


def train(kind: str, exporter: Any = None, recorder: Any = None) -> Any:
    envs, agent = make(kind)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
    probe = None
    if exporter is not None:
        from esper_exporter import PolicyProbe

        probe = PolicyProbe(agent, exporter, heads=HEADS[kind], optimizer=optimizer, every=1)
    seen = torch.as_tensor(envs.reset())
    for _ in range(UPDATES):
        kept: dict[str, list[Tensor]] = {
            name: [] for name in ("seen", "action", "log_prob", "reward", "done", "value")
        }
        for _ in range(STEPS):
            with torch.no_grad():
                policy = agent.act(seen)
                action = policy.sample()
                log_prob = policy.log_prob(action)
                value = agent.value(seen)
            following, reward, done = envs.step(action.numpy())
            reported = (
                seen,
                action,
                log_prob,
                torch.as_tensor(reward),
                torch.as_tensor(done),
                value,
            )
            for name, tensor in zip(kept, reported, strict=True):
                kept[name].append(tensor)
            seen = torch.as_tensor(following)
        batch = {name: torch.stack(rows) for name, rows in kept.items()}
        if batch["log_prob"].dim() == 3:
            batch["log_prob"] = batch["log_prob"].sum(-1)
        with torch.no_grad():
            ahead, gathered = agent.value(seen), torch.zeros(ENVS)
            advantages = torch.zeros(STEPS, ENVS)
            for t in reversed(range(STEPS)):
                alive = 1.0 - batch["done"][t].float()
                delta = batch["reward"][t] + GAMMA * ahead * alive - batch["value"][t]
                gathered = delta + GAMMA * LAMBDA * alive * gathered
                advantages[t], ahead = gathered, batch["value"][t]
        flat = {name: rows.flatten(0, 1) for name, rows in batch.items()}
        advantages = advantages.flatten()
        returns = advantages + flat["value"]
        with probe.update() if probe else nullcontext() as update:
            given_actions = {} if HEADS[kind]["action"] is None else {"action": flat["action"]}
            if probe:
                update.rollout(
                    values=flat["value"],
                    returns=returns,
                    raw_advantages=advantages,
                    actions=given_actions,
                )
            if recorder:
                now = recorder.begin(agent)
                now.rollout = {
                    "values": flat["value"].double().numpy(),
                    "returns": returns.double().numpy(),
                    "raw_advantages": advantages.double().numpy(),
                }
                now.actions = {h: a.double().numpy() for h, a in given_actions.items()}
            for _ in range(EPOCHS):
                for at in torch.randperm(ENVS * STEPS).chunk(MINIBATCHES):
                    policy = agent.act(flat["seen"][at])
                    new, entropy = policy.log_prob(flat["action"][at]), policy.entropy()
                    if new.dim() == 2:
                        new, entropy = new.sum(-1), entropy.sum(-1)
                    ratio = (new - flat["log_prob"][at]).exp()
                    mine = advantages[at]
                    mine = (mine - mine.mean()) / (mine.std() + 1e-8)
                    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                    policy_loss = torch.max(-mine * ratio, -mine * clipped).mean()
                    value_loss = 0.5 * (agent.value(flat["seen"][at]) - returns[at]).square().mean()
                    if probe:
                        update.minibatch(
                            log_probs={"action": new},
                            old_log_probs={"action": flat["log_prob"][at]},
                            entropy={"action": entropy},
                            policy_loss=policy_loss,
                            value_loss=value_loss,
                        )
                    if recorder:
                        seen_now = {
                            "new": new, "old": flat["log_prob"][at], "entropy": entropy,
                        }  # fmt: skip
                        for name, tensor in seen_now.items():
                            rows = getattr(recorder.now, name).setdefault("action", [])
                            rows.append(tensor.detach().double().numpy().copy())
                        for name, loss in {
                            "policy_loss": policy_loss, "value_loss": value_loss,
                        }.items():  # fmt: skip
                            recorder.now.losses.setdefault(name, []).append(loss.item())
                    optimizer.zero_grad()
                    (policy_loss - 0.01 * entropy.mean() + 0.5 * value_loss).backward()
                    nn.utils.clip_grad_norm_(agent.parameters(), MAX_NORM)
                    optimizer.step()
            if recorder:
                recorder.end()
    if probe:
        probe.close()
    return agent
