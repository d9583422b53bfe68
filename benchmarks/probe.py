"""What the torch probe costs a policy of two million parameters: an update with and without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.measure import Result
from esper_exporter import Exporter

HEADS = {
    "op": 6,
    "slot": 9,
    "blueprint": 13,
    "style": 4,
    "tempo": 3,
    "alpha_target": 3,
    "alpha_speed": 4,
    "alpha_curve": 5,
}
OVERHEAD = "probe: an update with it / without"
CLIPPING = "probe: clipping / clip_grad_norm_"


def run(rounds: int) -> list[Result]:
    """Nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_clipping(rounds), _update(rounds)]
    finally:
        torch.set_num_threads(threads)


def _policy() -> Any:
    """A body and eight heads: 2 million parameters in 60 tensors."""
    import torch
    from torch import nn

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [128, *[304] * 21]
            layers = [nn.Linear(narrow, wide) for narrow, wide in pairwise(widths)]
            self.body = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())])
            self.heads = nn.ModuleDict({head: nn.Linear(304, n) for head, n in HEADS.items()})
            self.critic = nn.Linear(304, 1)

    torch.manual_seed(1)
    return Policy()


def _probe(policy: Any) -> Any:
    from esper_exporter import PolicyProbe

    exporter = Exporter(port=0, state_dir="off", linger=0, watch_process=False)
    modules = {head: policy.heads[head] for head in HEADS}
    return PolicyProbe(policy, exporter, heads=HEADS, head_modules=modules, max_grad_norm=0.5)


def _paired(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    floor: float,
    pairs: int,
    note: str,
) -> Result:
    """The median over pairs of ours / theirs, of CPU time, each pair in turn first."""
    ours()
    theirs()
    found = []
    for number in range(pairs):
        spent = {}
        for which in (ours, theirs) if number % 2 else (theirs, ours):
            begun = time.process_time()
            which()
            spent[which] = time.process_time() - begun
        found.append((spent[ours], spent[theirs]))
    return Result(
        name,
        median(one for one, _ in found),
        median(other for _, other in found),
        median(one / other for one, other in found),
        "s",
        floor,
        more=False,
        note=note,
    )


def _clipping(rounds: int) -> Result:
    import torch
    from torch import nn

    policy = _policy()
    probe = _probe(policy)
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    parameters = list(policy.parameters())

    def ours() -> None:
        # The share of zeros is one of an update in ten; this is what every step pays.
        with probe.update():
            for _ in range(20):
                probe.clip_grad_norm_()

    def theirs() -> None:
        for _ in range(20):
            nn.utils.clip_grad_norm_(parameters, 0.5)

    return _paired(
        CLIPPING, ours, theirs, 1.05, 11 * rounds, "norms by head and layer, NaN and Inf; 20 calls"
    )


def _update(rounds: int) -> Result:
    import torch
    from torch.distributions import Categorical

    policy = _policy()
    probe = _probe(policy)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-4)
    observations = torch.randn(512, 128)
    actions = {head: torch.randint(0, n, (512,)) for head, n in HEADS.items()}
    old = {head: torch.full((512,), -1.5) for head in HEADS}
    values, returns = torch.randn(2, 512).unbind()

    def update(measured: bool) -> None:
        with probe.update() if measured else nullcontext() as measurement:
            if measured:
                measurement.rollout(
                    values=values, returns=returns, advantages=returns, actions=actions
                )
            for at in torch.arange(512).chunk(4):
                features = policy.body(observations[at])
                mine = {h: Categorical(logits=m(features)) for h, m in policy.heads.items()}
                new = {head: mine[head].log_prob(actions[head][at]) for head in HEADS}
                entropy = {head: mine[head].entropy() for head in HEADS}
                before = {head: old[head][at] for head in HEADS}
                ratio = torch.stack([new[head] - before[head] for head in HEADS]).sum(0).exp()
                policy_loss = -(ratio.clamp(0.8, 1.2) * returns[at]).mean()
                value_loss = (policy.critic(features)[:, 0] - returns[at]).square().mean()
                if measured:
                    measurement.minibatch(
                        log_probs=new,
                        old_log_probs=before,
                        entropy=entropy,
                        policy_loss=policy_loss,
                        value_loss=value_loss,
                    )
                optimizer.zero_grad()
                (policy_loss + value_loss).backward()
                if measured:
                    probe.clip_grad_norm_()
                else:
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()

    return _paired(
        OVERHEAD,
        lambda: update(True),
        lambda: update(False),
        1.05,
        6 * rounds,
        "4 minibatches of 128, one thread",
    )
