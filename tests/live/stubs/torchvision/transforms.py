"""Transforms that change nothing: the images are tensors already."""

from __future__ import annotations

from typing import Any


class Compose:
    def __init__(self, *_: Any, **__: Any) -> None: ...


class RandomCrop(Compose): ...


class RandomHorizontalFlip(Compose): ...


class ToTensor(Compose): ...


class Normalize(Compose): ...
