"""Faults put into the real trainer's second update."""

from __future__ import annotations

from typing import Any

import torch

from live.trainer import network


def inject(fault: str) -> None:
    """Break one thing in the second update: inside everything that watches."""
    from esper.simic.agent import ppo_agent

    where, head, kind = fault.split(":")
    number, count = float(kind), 0
    update, losses = ppo_agent.PPOAgent.update, ppo_agent.compute_losses
    breaking: list[bool] = []

    def compute_losses(**given: Any) -> Any:
        found = losses(**given)
        if any(breaking):
            object.__setattr__(found, "value_loss", found.value_loss * number)
            object.__setattr__(found, "total_loss", found.total_loss + found.value_loss)
        return found

    ppo_agent.compute_losses = compute_losses

    def faulty(agent: Any, *args: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count != 2:
            return update(agent, *args, **more)
        module = getattr(network(agent), f"{head}_head", None)
        handles = []
        if where == "logits":
            # First of all hooks: other listeners see the head's faulty output.
            broken_head = module.register_forward_hook(
                lambda _m, _i, out: out * number, prepend=True
            )
            handles.append(broken_head)
        elif where == "grad":
            weight = next(iter(module.parameters()))
            # One entry: 0 times infinity would be NaN.
            where_it_breaks = torch.zeros(weight.numel(), dtype=torch.bool)
            where_it_breaks[0] = True
            mask = where_it_breaks.view_as(weight)
            handles.append(
                weight.register_hook(lambda gradient: gradient.masked_fill(mask, number))
            )
        elif where == "weights":
            step = agent.optimizer.step

            def stepped(*a: Any, **k: Any) -> Any:
                result = step(*a, **k)
                with torch.no_grad():
                    next(iter(module.parameters())).view(-1)[0] = number
                return result

            agent.optimizer.step = stepped
        breaking.append(where == "loss")
        try:
            return update(agent, *args, **more)
        finally:
            breaking.clear()
            for handle in handles:
                handle.remove()

    ppo_agent.PPOAgent.update = faulty
