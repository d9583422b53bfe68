"""Noisy prototypes instead of photographs, the same in every process.

LIVE_RAISE_AT=N in the environment: reading the N-th image raises, as a broken file would.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.utils.data import Dataset

RAISE_AT = int(os.environ.get("LIVE_RAISE_AT", "0"))


class CIFAR10(Dataset[Any]):
    reads = 0

    def __init__(self, root: str = "", train: bool = True, **_: Any) -> None:
        draw = torch.Generator().manual_seed(7 if train else 8)
        small = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(6))
        prototypes = torch.nn.functional.interpolate(small, size=(32, 32))
        count = 512 if train else 256
        self.targets = torch.randint(0, 10, (count,), generator=draw).tolist()
        noise = torch.randn(count, 3, 32, 32, generator=draw)
        self.data = prototypes[self.targets] + 2.0 * noise

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        CIFAR10.reads += 1
        if CIFAR10.reads == RAISE_AT:
            raise RuntimeError(f"image {index} cannot be read")
        return self.data[index], self.targets[index]


CIFAR100 = MNIST = CIFAR10
