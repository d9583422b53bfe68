"""The blueprints: thirteen small modules that a seed can grow into; all keep the shape.

Each takes feature maps (N, C, H, W) and returns its change to them, in the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Nothing(nn.Module):
    """Changes nothing: the placebo among the blueprints."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class LowRank(nn.Module):
    """A 1 × 1 convolution of low rank that starts at zero."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.up(self.down(x))
        return changed


class Attention(nn.Module):
    """Single-head attention over the positions of a feature map; ``reach`` limits the distance."""

    def __init__(self, channels: int, side: int, reach: int | None = None) -> None:
        super().__init__()
        self.projections = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        place = torch.arange(side)
        near = (place[:, None] - place[None]).abs() <= (side if reach is None else reach)
        both = near[:, None, :, None] & near[None, :, None, :]
        self.register_buffer("near", both.reshape(side * side, side * side))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        query, key, value = self.projections(x).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        scores = (query @ key.transpose(1, 2) / math.sqrt(c)).masked_fill(~self.near, -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, c, h, w)
        changed: Tensor = self.out(mixed)
        return changed


def _conv(channels: int, hidden: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, size, padding=size // 2),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, size, padding=size // 2),
    )


def _bottleneck(channels: int, _side: int) -> nn.Module:
    hidden = max(1, channels // 2)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
    )


def _depthwise(channels: int, _side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1),
    )


def _mlp(channels: int, side: int, hidden: int) -> nn.Module:
    width = channels * side * side
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, width),
        nn.Unflatten(1, (channels, side, side)),
    )


_MAKERS: dict[str, Callable[[int, int], nn.Module]] = {
    "noop": lambda c, s: Nothing(),
    "conv_light": lambda c, s: nn.Conv2d(c, c, 1),
    "attention": lambda c, s: Attention(c, s),
    "norm": lambda c, s: nn.GroupNorm(1, c),
    "depthwise": _depthwise,
    "bottleneck": _bottleneck,
    "conv_small": lambda c, s: nn.Conv2d(c, c, 3, padding=1),
    "conv_heavy": lambda c, s: _conv(c, 3 * c, 3),
    "lora": lambda c, s: LowRank(c, 1),
    "lora_large": lambda c, s: LowRank(c, max(1, c // 2)),
    "mlp_small": lambda c, s: _mlp(c, s, 8),
    "mlp": lambda c, s: _mlp(c, s, 32),
    "flex_attention": lambda c, s: Attention(c, s, reach=1),
}


def grow(blueprint: str, channels: int, side: int) -> nn.Module:
    """A new module of a blueprint for feature maps of that shape. KeyError for an unknown name."""
    return _MAKERS[blueprint](channels, side)


def parameters_of(module: nn.Module) -> int:
    """The number of its learnable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
