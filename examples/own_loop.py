"""Export your own training loop: policy updates as dicts, one a second.

usage: own_loop.py [UPDATES [SECONDS_BETWEEN]]
"""

from __future__ import annotations

import math
import random
import sys
import time
from datetime import UTC, datetime

from esper_exporter import Exporter

HEADS = (
    "slot",
    "blueprint",
    "style",
    "tempo",
    "alpha_target",
    "alpha_speed",
    "alpha_curve",
    "op",
)

STARTED: dict[str, object] = {
    "n_envs": 1,
    "max_epochs": 10,
    "max_batches": 300,
    "task": "example",
    "host_params": 4200,
    "slot_ids": ["r0c0"],
    "seed": 1,
    "n_episodes": 300,
    "lr": 3e-4,
    "clip_ratio": 0.2,
    "entropy_coef": 0.1,
    "param_budget": 100_000,
    "policy_device": "cpu",
    "env_devices": ["cpu"],
    "reward_mode": "shaped",
}


def policy_update(number: int) -> dict[str, object]:
    """What a PPO update of a learning policy might report."""
    decay = math.exp(-number / 100)
    return {
        "batch": number,
        "policy_loss": random.gauss(0.0, 0.5),
        "value_loss": 0.9 * decay + random.random() / 10,
        "entropy": 8.9 - 2.0 * (1 - decay),
        "grad_norm": random.lognormvariate(1.5, 0.5),
        "kl_divergence": random.random() / 100,
        "clip_fraction": random.random() / 5,
        "nan_grad_count": 0,
        **{f"head_{head}_entropy": 0.3 + 0.7 * decay for head in HEADS},
        **{f"head_{head}_grad_norm": random.lognormvariate(0.0, 0.5) for head in HEADS},
    }


def event(name: str, data: dict[str, object]) -> dict[str, object]:
    """One event, as it happens now."""
    return {"event_type": name, "timestamp": datetime.now(UTC), "data": data}


def main(updates: int, seconds_between: float) -> None:
    with Exporter() as exporter:
        if exporter.url:  # of this process, or of the agent or `esper-exporter run` that serves it
            print(f"serving {exporter.url}/metrics", flush=True)
        else:
            print("the port is taken; the exporter tries again in the background", flush=True)
        exporter.emit(event("TRAINING_STARTED", STARTED))
        for number in range(1, updates + 1):
            exporter.emit(event("PPO_UPDATE_COMPLETED", policy_update(number)))
            time.sleep(seconds_between)


if __name__ == "__main__":
    main(
        updates=int(sys.argv[1]) if len(sys.argv) > 1 else 300,
        seconds_between=float(sys.argv[2]) if len(sys.argv) > 2 else 1.0,
    )
