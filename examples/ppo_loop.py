"""A PPO loop in the style of CleanRL, one file, instrumented in the ten lines marked "# probe".

It balances a pole on a cart. usage: ppo_loop.py [UPDATES]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from esper_exporter import Exporter, PolicyProbe

ENVS, STEPS, EPOCHS, MINIBATCHES = 8, 64, 4, 4
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2
VALUE_WEIGHT, ENTROPY_WEIGHT, MAX_GRAD_NORM = 0.5, 0.01, 0.5


class Agent(nn.Module):
    """An actor that pushes left or right, and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))

    def policy(self, observations: Tensor) -> Categorical:
        return Categorical(logits=self.actor(observations))

    def value(self, observations: Tensor) -> Tensor:
        values: Tensor = self.critic(observations).squeeze(-1)
        return values


class CartPoles:
    """Poles on carts, balanced side by side: position, speed, angle, angular speed."""

    def __init__(self, count: int) -> None:
        self.state = 0.05 * torch.randn(count, 4)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Push for 20 ms; the new state, and which poles fell and were set up again."""
        _, speed, angle, turn = self.state.unbind(-1)
        push = 20.0 * actions - 10.0
        sine, cosine = angle.sin(), angle.cos()
        force = (push + 0.05 * turn.square() * sine) / 1.1
        lean = (9.8 * sine - cosine * force) / (0.5 * (4 / 3 - 0.1 * cosine.square() / 1.1))
        drive = force - 0.05 * lean * cosine / 1.1
        changes = torch.stack([speed, drive, turn, lean], -1)
        self.state = self.state + 0.02 * changes
        fell = (self.state[:, 0].abs() > 2.4) | (self.state[:, 2].abs() > 0.2095)
        self.state = torch.where(fell[:, None], 0.05 * torch.randn_like(self.state), self.state)
        return self.state, fell


def main(updates: int) -> None:
    torch.manual_seed(1)
    agent, poles = Agent(), CartPoles(ENVS)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3)
    exporter = Exporter()  # probe
    exporter.start()  # probe
    probe = PolicyProbe(agent, exporter, heads={"op": 2}, head_modules={"op": agent.actor})  # probe
    print(f"serving {exporter.url}/metrics" if exporter.url else "port taken", flush=True)
    observation = poles.state
    for number in range(1, updates + 1):
        seen = torch.zeros(STEPS, ENVS, 4)
        actions, log_probs, values, ends = torch.zeros(4, STEPS, ENVS).unbind()
        with torch.no_grad():
            for t in range(STEPS):
                seen[t] = observation
                distribution = agent.policy(observation)
                actions[t] = distribution.sample()
                log_probs[t] = distribution.log_prob(actions[t])
                values[t] = agent.value(observation)
                observation, fell = poles.step(actions[t])
                ends[t] = fell.float()
            advantages, later, after = torch.zeros(STEPS, ENVS), 0.0, agent.value(observation)
            for t in reversed(range(STEPS)):
                goes_on = 1.0 - ends[t]
                delta = 1.0 - ends[t] + GAMMA * after * goes_on - values[t]
                advantages[t] = later = delta + GAMMA * LAMBDA * goes_on * later
                after = values[t]
            returns = advantages + values

        b_seen, b_actions, b_old = seen.reshape(-1, 4), actions.reshape(-1), log_probs.reshape(-1)
        b_advantages, b_returns = advantages.reshape(-1), returns.reshape(-1)
        with probe.update(batch=number) as update:  # probe
            update.rollout(values=values, returns=returns, raw_advantages=advantages)  # probe
            for _ in range(EPOCHS):
                for at in torch.randperm(STEPS * ENVS).chunk(MINIBATCHES):
                    distribution = agent.policy(b_seen[at])
                    new = distribution.log_prob(b_actions[at])
                    entropy = distribution.entropy()
                    ratio = (new - b_old[at]).exp()
                    scaled = b_advantages[at]
                    scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
                    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                    policy_loss = -torch.min(scaled * ratio, scaled * clipped).mean()
                    value_loss = 0.5 * (agent.value(b_seen[at]) - b_returns[at]).square().mean()
                    steps = {"log_probs": {"op": new}, "old_log_probs": {"op": b_old[at]}}  # probe
                    losses = {"policy_loss": policy_loss, "value_loss": value_loss}  # probe
                    update.minibatch(entropy={"op": entropy}, **steps, **losses)  # probe
                    loss = policy_loss + VALUE_WEIGHT * value_loss - ENTROPY_WEIGHT * entropy.mean()
                    optimizer.zero_grad()
                    loss.backward()
                    probe.clip_grad_norm_(max_norm=MAX_GRAD_NORM)  # probe, was nn.utils's
                    optimizer.step()
    print(f"after {updates} updates a pole stays up {1 / max(float(ends.mean()), 1e-9):.0f} steps")
    probe.close()  # probe


if __name__ == "__main__":
    main(updates=int(sys.argv[1]) if len(sys.argv) > 1 else 200)
