"""A small factored policy and what the probe reports of it, for the probe's tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from esper_exporter import Exporter
from esper_exporter.probes.torch import PolicyProbe

LATCHED = "esper_tamiyo_head_nonfinite_latched"
NAN, INF = float("nan"), float("inf")
HEADS = {"op": 6, "slot": 3, "tempo": 3, "alpha_curve": 1}


class Policy(nn.Module):
    """A body, one linear head each, and a critic."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(8, 16)
        self.heads = nn.ModuleDict({head: nn.Linear(16, n) for head, n in HEADS.items()})
        self.critic = nn.Linear(16, 1)


class Told:
    """An exporter that only remembers."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.failures = 0

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def probe_failed(self) -> None:
        self.failures += 1

    def of(self, name: str) -> list[dict[str, Any]]:
        """The payloads of one type of event."""
        return [event["data"] for event in self.events if event["event_type"] == name]

    @property
    def update(self) -> dict[str, Any]:
        """The last policy update."""
        return self.of("TAMIYO_POLICY_UPDATE")[-1]

    @property
    def anomalies(self) -> list[tuple[str, str | None]]:
        reported = self.of("NUMERICAL_INSTABILITY_DETECTED")
        return [(each["anomaly_type"], each["detail"]) for each in reported]


def probe(sink: Any, policy: Policy | None = None, **options: Any) -> PolicyProbe:
    policy = policy or Policy()
    modules: dict[str, nn.Module] = {head: policy.heads[head] for head in HEADS}
    return PolicyProbe(
        policy, sink, heads=HEADS, head_modules={**modules, "value": policy.critic}, **options
    )


def batch(steps: int = 12, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A minibatch of random numbers."""
    draw = torch.Generator().manual_seed(seed)

    def some(low: float, high: float) -> dict[str, Tensor]:
        return {
            head: (torch.rand(steps, generator=draw) * (high - low) + low).to(dtype)
            for head in HEADS
        }

    old = some(-3.0, -0.1)
    return {
        "log_probs": {h: v + 0.3 * torch.randn(steps, generator=draw) for h, v in old.items()},
        "old_log_probs": old,
        "entropy": some(0.0, 1.0),
        "policy_loss": torch.tensor(0.25),
        "value_loss": torch.tensor(0.5),
    }


def flags(steps: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {head: torch.rand(steps, generator=draw) < 0.6 for head in HEADS}


def gradients(policy: Policy, size: float = 1.0, seed: int = 3) -> None:
    """Random gradients in place of a backward pass."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in policy.parameters():
        parameter.grad = (size * torch.randn(parameter.shape, generator=draw)).to(parameter.dtype)


def broken(head: str, what: float) -> dict[str, Any]:
    """Log-probabilities of which one is not finite."""
    log_probs: dict[str, Tensor] = batch()["log_probs"]
    log_probs[head][5] = what
    return {"log_probs": log_probs}


def page(exporter: Exporter) -> str:
    return exporter.render().decode()
