"""`python -m benchmarks.probed_run FAULT`: a small PPO loop with `PolicyProbe`.

FAULT is what goes wrong in update 6: `nan:steer` or `inf:gas` in a head's log-probabilities,
`grad-nan` or `grad-inf` in a gradient, `explode`, `raise`, or `none`.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from esper_exporter import Exporter, PolicyProbe

UPDATES, UPDATE = 9, 6
HEADS = {"gas": 3, "steer": 5}


def main(fault: str) -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    body = nn.Sequential(nn.Linear(4, 16), nn.Tanh())
    heads = nn.ModuleDict({head: nn.Linear(16, count) for head, count in HEADS.items()})
    critic = nn.Linear(16, 1)
    policy = nn.ModuleDict({"body": body, "heads": heads, "critic": critic})
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    exporter = Exporter(port=0, linger=0)
    modules: dict[str, nn.Module] = {head: heads[head] for head in HEADS} | {"value": critic}
    probe = PolicyProbe(policy, exporter, heads=HEADS, head_modules=modules, optimizer=optimizer)
    probe.training_started(task="own loop", max_batches=UPDATES)
    try:
        for number in range(1, UPDATES + 1):
            broken = fault if number == UPDATE else "none"
            seen = torch.randn(64, 4)
            chosen = {head: torch.randint(0, count, (64,)) for head, count in HEADS.items()}
            with torch.no_grad():
                old = {
                    head: Categorical(logits=heads[head](body(seen))).log_prob(chosen[head])
                    for head in HEADS
                }
            with probe.update(batch=number) as update:
                if broken == "raise":
                    raise KeyError("no such slot")
                hidden = body(seen)
                policies = {head: Categorical(logits=heads[head](hidden)) for head in HEADS}
                new = {head: policies[head].log_prob(chosen[head]) for head in HEADS}
                kind, _, head = broken.partition(":")
                if head:
                    new[head] = _with_one(new[head], float(kind))
                loss = -sum((new[each] - old[each]).exp().mean() for each in HEADS)
                value_loss = (critic(hidden).squeeze(-1) - seen[:, 0]).square().mean()
                update.minibatch(
                    log_probs=new,
                    old_log_probs=old,
                    entropy={each: policies[each].entropy() for each in HEADS},
                    policy_loss=loss,
                    value_loss=value_loss,
                )
                if head:
                    update.skip()
                    continue
                optimizer.zero_grad()
                (loss + value_loss).backward()
                _break_gradient(heads["gas"], broken)
                probe.clip_grad_norm_(max_norm=0.5)
                if not broken.startswith("grad"):
                    optimizer.step()
    finally:
        probe.close()
        exporter.close()


def _with_one(values: Tensor, value: float) -> Tensor:
    broken = values.clone()
    broken[7] = value
    return broken


def _break_gradient(module: nn.Module, fault: str) -> None:
    gradient = next(module.parameters()).grad
    assert gradient is not None
    if fault.startswith("grad-"):
        gradient[0, 0] = float(fault.removeprefix("grad-"))
    elif fault == "explode":
        gradient *= 1e6


if __name__ == "__main__":
    main(sys.argv[1])
