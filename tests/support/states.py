"""A run's state after some events, for tests of the rules between an event and the state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from esper_exporter import Exporter
from esper_exporter.state.run import RunState

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

STARTED: dict[str, Any] = {
    "n_envs": 2,
    "max_epochs": 10,
    "max_batches": 5,
    "task": "test",
    "host_params": 100,
    "slot_ids": ["r0c0", "r0c1"],
    "seed": 1,
    "n_episodes": 10,
    "lr": 3e-4,
    "clip_ratio": 0.2,
    "entropy_coef": 0.1,
    "param_budget": 1000,
    "policy_device": "cpu",
    "env_devices": ["cpu"],
    "reward_mode": "shaped",
}
"""TRAINING_STARTED with its required fields and no others."""

UPDATE: dict[str, Any] = {
    "policy_loss": 0.5,
    "value_loss": 0.25,
    "entropy": 3.0,
    "grad_norm": 1.5,
    "kl_divergence": 0.01,
    "clip_fraction": 0.125,
    "nan_grad_count": 0,
}
"""A policy update with its required fields and no others."""


def event(name: str, data: dict[str, Any], seconds: float = 0.0, **envelope: Any) -> dict[str, Any]:
    """An event so many seconds after noon."""
    when = NOON + timedelta(seconds=seconds)
    return {"event_type": name, "timestamp": when, "data": data, **envelope}


def started(**changes: Any) -> dict[str, Any]:
    """TRAINING_STARTED."""
    return event("TRAINING_STARTED", STARTED | changes)


def update(seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A policy update."""
    return event("TAMIYO_POLICY_UPDATE", UPDATE | changes, seconds)


def emitted(*events: dict[str, Any]) -> Exporter:
    """An exporter without a server, after these events."""
    exporter = Exporter(port=0)
    for each in events:
        exporter.emit(each)
    return exporter


def state_after(*events: dict[str, Any], group: str = "default") -> RunState:
    """The state of a group's run after these events."""
    return emitted(*events)._runs.current[group].state


def lit_sources(run: RunState) -> set[str]:
    """The lit latches that are no head's."""
    return {source for source, latch in run.latches.sources.items() if latch.lit}
