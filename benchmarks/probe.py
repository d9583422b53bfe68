"""What the torch probe costs: an update with and without it, a clipping, and what others cost.

Three policies with eight heads: the small network of most PPO loops (two layers of 64), where
every microsecond of bookkeeping shows, one of five million parameters, where memory traffic does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import watchers
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
UPDATE_FLOOR, CLIP_FLOOR = 1.05, 1.02
CALLS = 20


@dataclass(frozen=True)
class Size:
    """A policy and the minibatches that it learns from."""

    name: str
    widths: tuple[int, ...]
    minibatches: int
    rows: int
    pairs: int
    """Pairs of updates a round."""


SMALL = Size("64x64", (64, 64), 64, 64, 2)
LARGE = Size("5M parameters", (490,) * 21, 4, 128, 2)


def run(rounds: int) -> list[Result]:
    """Nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = [_update(SMALL, rounds), _update(LARGE, rounds)]
        results += [_clipping(SMALL, rounds), _clipping(LARGE, rounds)]
        return results + watchers.run(lambda: Loop(SMALL), paired, rounds)
    finally:
        torch.set_num_threads(threads)


class Loop:
    """PPO updates of one policy, and what watches them."""

    def __init__(self, size: Size) -> None:
        import torch

        self.size = size
        self.policy = _policy(size)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), 1e-4)
        steps = size.minibatches * size.rows
        self.observations = torch.randn(steps, 128)
        self.actions = {head: torch.randint(0, n, (steps,)) for head, n in HEADS.items()}
        self.old = {head: torch.full((steps,), -1.5) for head in HEADS}
        self.values, self.returns = torch.randn(2, steps).unbind()

    def update(
        self, probe: Any = None, logged: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """One update, with the probe, or with ``logged`` called after each backward pass."""
        import torch
        from torch.distributions import Categorical

        policy, returns = self.policy, self.returns
        with probe.update() if probe else nullcontext() as measurement:
            if probe:
                measurement.rollout(
                    values=self.values, returns=returns, advantages=returns, actions=self.actions
                )
            for at in torch.arange(len(returns)).split(self.size.rows):
                features = policy.body(self.observations[at])
                mine = {h: Categorical(logits=m(features)) for h, m in policy.heads.items()}
                new = {head: mine[head].log_prob(self.actions[head][at]) for head in HEADS}
                entropy = {head: mine[head].entropy() for head in HEADS}
                before = {head: self.old[head][at] for head in HEADS}
                ratio = torch.stack([new[head] - before[head] for head in HEADS]).sum(0).exp()
                policy_loss = -(ratio.clamp(0.8, 1.2) * returns[at]).mean()
                value_loss = (policy.critic(features)[:, 0] - returns[at]).square().mean()
                if probe:
                    measurement.minibatch(
                        log_probs=new,
                        old_log_probs=before,
                        entropy=entropy,
                        policy_loss=policy_loss,
                        value_loss=value_loss,
                    )
                self.optimizer.zero_grad()
                (policy_loss + value_loss).backward()
                if logged is not None:
                    logged({"policy_loss": policy_loss, "value_loss": value_loss, **entropy})
                if probe:
                    probe.clip_grad_norm_()
                else:
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                self.optimizer.step()


def _policy(size: Size) -> Any:
    """A body, eight heads and a critic."""
    import torch
    from torch import nn

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(narrow, wide) for narrow, wide in pairwise((128, *size.widths))]
            self.body = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())])
            last = size.widths[-1]
            self.heads = nn.ModuleDict({head: nn.Linear(last, n) for head, n in HEADS.items()})
            self.critic = nn.Linear(last, 1)

    torch.manual_seed(1)
    return Policy()


def _probe(policy: Any) -> Any:
    from esper_exporter import PolicyProbe

    exporter = Exporter(port=0, state_dir="off", linger=0, watch_process=False)
    modules = {head: policy.heads[head] for head in HEADS}
    return PolicyProbe(policy, exporter, heads=HEADS, head_modules=modules, max_grad_norm=0.5)


def paired(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    floor: float | None,
    pairs: int,
    note: str,
) -> Result:
    """The median over pairs of ours / theirs, of CPU time, each pair in turn first. What returns a
    float measures its time itself."""
    ours()
    theirs()
    found = []
    for number in range(pairs):
        spent = {}
        for which in (ours, theirs) if number % 2 else (theirs, ours):
            begun = time.process_time()
            took = which()
            whole = time.process_time() - begun
            spent[which] = took if isinstance(took, float) else whole
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


def _clipping(size: Size, rounds: int) -> Result:
    """Gradients are drawn anew for each call, outside the measured time: clipped ones stay below
    the limit."""
    import torch
    from torch import nn

    policy = _policy(size)
    probe = _probe(policy)
    parameters = list(policy.parameters())

    def timed(clip: Callable[[], object]) -> float:
        spent = 0.0
        for _ in range(CALLS):
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            begun = time.process_time()
            clip()
            spent += time.process_time() - begun
        return spent

    with probe.update():
        # A clipping belongs to an update: its norms are kept until the update ends.
        return paired(
            f"probe: clipping / clip_grad_norm_, {size.name}",
            lambda: timed(probe.clip_grad_norm_),
            lambda: timed(lambda: nn.utils.clip_grad_norm_(parameters, 0.5)),
            CLIP_FLOOR,
            11 * rounds,
            f"norms by head and layer, NaN and Inf; {CALLS} calls, {len(parameters)} tensors",
        )


def _update(size: Size, rounds: int) -> Result:
    loop = Loop(size)
    probe = _probe(loop.policy)
    return paired(
        f"probe: an update with it / without, {size.name}",
        lambda: loop.update(probe),
        loop.update,
        UPDATE_FLOOR,
        size.pairs * rounds,
        f"8 heads, {size.minibatches} minibatches of {size.rows}, one thread",
    )
