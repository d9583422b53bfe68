"""The real esper-lite, unmodified, on synthetic images: how the live tests train it.

It holds no code of the trainer.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

ENVS, EPOCHS = 2, 10


def load() -> None:
    """Make the trainer importable from the checkout that ESPER_LITE_SRC names."""
    sys.path.insert(0, str(Path(os.environ["ESPER_LITE_SRC"]) / "src"))
    without_torchvision()
    torch.set_num_threads(1)  # two that wait for each other crawl on a busy machine
    import esper.runtime.tasks as tasks

    tasks.get_cifar10_datasets = synthetic


def without_torchvision() -> None:
    """The trainer imports torchvision for real images only; here there are none."""
    made = {name: ModuleType(name) for name in ("torchvision", "torchvision.datasets")}
    made["torchvision.transforms"] = ModuleType("torchvision.transforms")

    class Missing:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("there are no real images here")

    for name in ("CIFAR10", "CIFAR100", "MNIST"):
        setattr(made["torchvision.datasets"], name, Missing)
    for name in ("Compose", "RandomCrop", "RandomHorizontalFlip", "ToTensor", "Normalize"):
        setattr(made["torchvision.transforms"], name, Missing)
    for name in ("datasets", "transforms"):
        setattr(made["torchvision"], name, made[f"torchvision.{name}"])
    sys.modules.update(made)


def images(count: int, prototypes: torch.Tensor, draw: torch.Generator) -> TensorDataset:
    labels = torch.randint(0, 10, (count,), generator=draw)
    noise = torch.randn(count, 3, 32, 32, generator=draw)
    return TensorDataset(prototypes[labels] + 2.0 * noise, labels)


def synthetic(*_: Any, **__: Any) -> tuple[TensorDataset, TensorDataset]:
    draw = torch.Generator().manual_seed(7)
    small = torch.randn(10, 3, 8, 8, generator=draw)
    prototypes = torch.nn.functional.interpolate(small, size=(32, 32))
    return images(512, prototypes, draw), images(256, prototypes, draw)


def network(agent: Any) -> Any:
    return getattr(agent.policy.network, "_orig_mod", agent.policy.network)


@dataclass(frozen=True)
class Took:
    """One training: how long it took, and what it left."""

    wall: float
    """Seconds from begin to end."""
    thread: float
    """CPU seconds of the training thread."""
    process: float
    """CPU seconds, user and system, of all threads."""
    error: str | None
    digest: str
    """Of weights, optimizer states and random state."""


def train(k: int, rounds: int, seed: int) -> Took:
    """``rounds`` updates of ``k`` inner epochs. What the trainer raises is its ``error``."""
    from esper.simic.agent.ppo_agent import PPOAgent
    from esper.simic.telemetry import TelemetryConfig, TelemetryLevel
    from esper.simic.training import TrainingConfig
    from esper.simic.training.vectorized import train_ppo_vectorized

    agents: list[Any] = []
    made = PPOAgent.__init__

    def init(agent: Any, *args: Any, **more: Any) -> None:
        made(agent, *args, **more)
        agents.append(agent)

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    config = TrainingConfig.for_cifar_impaired()
    config.task, config.n_envs, config.n_episodes = "cifar_impaired", ENVS, rounds
    config.max_epochs = config.chunk_length = EPOCHS
    config.slots, config.seed, config.batch_size_per_env = ["r0c0", "r0c1"], seed, 64
    config.compile_mode, config.lstm_hidden_dim = "off", 128
    config.recurrent_n_epochs = k
    error = None
    PPOAgent.__init__ = init
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    try:
        train_ppo_vectorized(
            device="cpu",
            devices=["cpu"],
            num_workers=0,
            telemetry_config=TelemetryConfig(level=TelemetryLevel.NORMAL),
            quiet_analytics=True,
            group_id="default",
            **config.to_train_kwargs(),
        )
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    finally:
        PPOAgent.__init__ = made
    return Took(
        time.perf_counter() - wall,
        time.thread_time() - thread,
        time.process_time() - process,
        error,
        digest(agents),
    )


def digest(agents: Iterable[Any]) -> str:
    """A hash of the random state and of all agents' weights and optimizer states."""
    found = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for agent in agents:
        for _, parameter in sorted(network(agent).named_parameters()):
            found.update(parameter.detach().numpy().tobytes())
        for state in agent.optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    found.update(value.numpy().tobytes())
    return found.hexdigest()
