"""A training for the Slurm trials, run by the system's Python in the chroot.

usage: trainer.py [--seconds S] [--nan RANK] [--nan-in-first-life] [--exit-after-nan] [--eat]
                  [--fake-gpu]

A policy update every quarter of a second. SIGUSR1 writes a checkpoint and continues; a job that
Slurm has restarted resumes from it, as its TRAINING_STARTED says.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from esper_exporter import Exporter
from esper_exporter.probes.gpu.fake import FakeDriver, Fault

EVERY_SECONDS = 0.25
XID_AFTER_SECONDS = 10.0

STARTED: dict[str, Any] = {
    "n_envs": 1,
    "max_epochs": 5,
    "max_batches": 300,
    "task": "slurm_trial",
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

RANK = int(os.environ.get("SLURM_PROCID", "0"))
RESTARTS = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
CHECKPOINT = Path.home() / f"checkpoint-{os.environ.get('SLURM_JOB_ID', 'none')}-{RANK}"


def event(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """An event of now."""
    return {"event_type": name, "timestamp": time.time(), "data": data}


def update(index: int, nan_head: str | None) -> dict[str, Any]:
    """A policy update, with a NaN in one head or none."""
    data: dict[str, Any] = {
        "policy_loss": 0.1,
        "value_loss": 0.2,
        "entropy": 1.0,
        "grad_norm": 0.5,
        "kl_divergence": 0.01,
        "clip_fraction": 0.1,
        "nan_grad_count": 0,
        "ppo_updates_count": index,
    }
    if nan_head is not None:
        data["head_nan_detected"] = {nan_head: True}
    return event("PPO_UPDATE_COMPLETED", data)


def checkpoint(_number: int, _frame: FrameType | None) -> None:
    """Write a checkpoint, as a trainer does on Slurm's warning signal."""
    CHECKPOINT.write_text(f"{time.time()}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--nan", type=int, metavar="RANK")
    parser.add_argument("--nan-in-first-life", action="store_true")
    parser.add_argument("--exit-after-nan", action="store_true")
    parser.add_argument("--eat", action="store_true")
    parser.add_argument("--fake-gpu", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGUSR1, checkpoint)
    driver = FakeDriver(1, faults=[Fault("xid", at=XID_AFTER_SECONDS)])
    exporter = Exporter(
        gpu_driver=driver if options.fake_gpu else None,
        gpu_vitals="on" if options.fake_gpu else "off",
        host_vitals="off",
    )
    exporter.start()
    resumed = {"resume_path": str(CHECKPOINT)} if RESTARTS else {}
    exporter.emit(event("TRAINING_STARTED", STARTED | resumed))
    has_nan = options.nan == RANK and not (options.nan_in_first_life and RESTARTS)
    began, index, eaten = time.monotonic(), 0, []
    while time.monotonic() - began < options.seconds:
        index += 1
        late = index * EVERY_SECONDS > 10.0
        exporter.emit(update(index, "op" if has_nan and late else None))
        if has_nan and late and options.exit_after_nan:
            os._exit(3)
        if options.eat and late:
            eaten.append(bytearray(os.urandom(1 << 24)))
        else:
            time.sleep(EVERY_SECONDS)
    exporter.close()


if __name__ == "__main__":
    main()
