"""The data: scikit-learn's handwritten digits, 1,797 images of 8 × 8 pixels in ten classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor

CLASSES = 10
SIDE = 8
VALIDATION_IMAGES = 360
NOISE = 0.35
"""Standard deviation of the noise on the pixels (0 to 1), so that a small network has to work."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (N, 1, 8, 8) and labels (N,), for training and for validation."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor


def load(seed: int) -> Digits:
    """The digits with noise, shuffled and split; deterministic for a seed."""
    bunch = load_digits()
    generator = torch.Generator().manual_seed(seed)
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16.0
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator)
    held_out, rest = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]
    return Digits(images[rest], labels[rest], images[held_out], labels[held_out])
