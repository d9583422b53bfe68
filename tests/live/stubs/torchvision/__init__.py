"""Stands in for torchvision, which has no build for this torch: synthetic images, no transforms."""

from . import datasets, transforms

__all__ = ["datasets", "transforms"]
