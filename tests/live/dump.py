"""Copies of what the trainer's functions are given, for a computation of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from live.trainer import network


class Dump:
    """Copies what the trainer's functions are given, for a computation of the tests' own."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.current: dict[str, Any] | None = None

    def keep(self, kind: str, value: Any) -> None:
        if self.current is not None:
            self.current.setdefault(kind, []).append(copied(value))

    def install(self) -> None:
        from esper.simic.agent import ppo_agent
        from esper.simic.agent.rollout_buffer import TamiyoRolloutBuffer as Buffer

        dump, ratios, losses = self, ppo_agent.compute_ratio_metrics, ppo_agent.compute_losses
        update, sequences = ppo_agent.PPOAgent.update, Buffer.get_batched_sequences
        normalize, clip = Buffer.normalize_advantages, torch.nn.utils.clip_grad_norm_

        def compute_ratio_metrics(**given: Any) -> Any:
            names = ("log_probs", "old_log_probs", "head_masks", "clip_ratio")
            dump.keep("ratios", {name: given[name] for name in names})
            return ratios(**given)

        def compute_losses(**given: Any) -> Any:
            dump.keep("losses", {name: given[name] for name in ("forced_mask", "entropy")})
            return losses(**given)

        def normalize_advantages(buffer: Any) -> Any:
            agent = dump.current and dump.current["agent"]
            if agent is not None:
                rows = [(env, n) for env, n in enumerate(buffer.step_counts)]

                def valid(name: str) -> torch.Tensor:
                    return torch.cat([getattr(buffer, name)[env, :n] for env, n in rows])

                dump.keep(
                    "rollout",
                    {
                        "values": agent.value_normalizer.denormalize(valid("values")),
                        "returns": valid("returns"),
                        "td_errors": valid("td_errors"),
                        "counts": list(buffer.step_counts),
                        "most": buffer.rewards.numel(),
                    },
                )
            return normalize(buffer)

        def get_batched_sequences(buffer: Any, *args: Any, **more: Any) -> Any:
            data = sequences(buffer, *args, **more)
            names = [name for name in data if name.endswith("_actions")]
            dump.keep("data", {name: data[name] for name in (*names, "valid_mask")})
            return data

        def clip_grad_norm_(parameters: Any, max_norm: float, *args: Any, **more: Any) -> Any:
            given = list(parameters)
            if dump.current is not None:
                by = {id(p): name for name, p in network(dump.current["agent"]).named_parameters()}
                dump.keep("grads", {by[id(p)]: p.grad for p in given if p.grad is not None})
                dump.keep("limit", float(max_norm))
            return clip(given, max_norm, *args, **more)

        def measured_update(agent: Any, *args: Any, **more: Any) -> Any:
            dump.current = {"agent": agent}
            dump.keep("before", dict(network(agent).named_parameters()))
            try:
                return update(agent, *args, **more)
            finally:
                dump.keep("after", dict(network(agent).named_parameters()))
                found, dump.current = dump.current, None
                del found["agent"]
                dump.updates.append(found)

        ppo_agent.compute_ratio_metrics = compute_ratio_metrics
        ppo_agent.compute_losses = compute_losses
        ppo_agent.PPOAgent.update = measured_update
        Buffer.normalize_advantages = normalize_advantages
        Buffer.get_batched_sequences = get_batched_sequences
        torch.nn.utils.clip_grad_norm_ = clip_grad_norm_

    def save(self, folder: Path) -> None:
        """A file for each update: ``update0.pt`` …"""
        for number, each in enumerate(self.updates):
            torch.save(each, folder / f"update{number}.pt")


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
