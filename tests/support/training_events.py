"""Events of a small training, for programs that run one: plain data, whatever version reads it."""

from __future__ import annotations

import time
from typing import Any

STARTED: dict[str, Any] = {
    "n_envs": 1,
    "max_epochs": 5,
    "max_batches": 300,
    "task": "cifar_baseline",
    "host_params": 1000,
    "slot_ids": ["r0c0"],
    "seed": 1,
    "n_episodes": 300,
    "lr": 1e-3,
    "clip_ratio": 0.2,
    "entropy_coef": 0.01,
    "param_budget": 1000,
    "reward_mode": "shaped",
    "policy_device": "cpu",
    "env_devices": ["cpu"],
}


def update(index: int, nan_head: str | None = None, **values: float) -> dict[str, Any]:
    """A policy update with the fields that an event must have, ``values`` in their place."""
    data: dict[str, Any] = {
        "policy_loss": 0.1,
        "value_loss": 0.2,
        "entropy": 1.0,
        "grad_norm": 0.5,
        "kl_divergence": 0.01,
        "clip_fraction": 0.1,
        "nan_grad_count": 0,
        "pre_clip_grad_norm": 0.5,
        "ppo_updates_count": index,
        "ppo_update_idx": index,
        **values,
    }
    if nan_head is not None:
        data["head_nan_detected"] = {nan_head: True}
    return {"event_type": "PPO_UPDATE_COMPLETED", "timestamp": time.time(), "data": data}
