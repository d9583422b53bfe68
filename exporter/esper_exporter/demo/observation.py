"""What the policy sees of an environment: the host, and every slot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from esper_exporter.contract.vocabulary import BLUEPRINTS, STAGES
from esper_exporter.demo.seeds import Seed, Slot

HOST_FEATURES = 6
SLOT_FEATURES = len(STAGES) + len(BLUEPRINTS) + 6
CLIP = 5.0
"""The bound at which features are clipped."""

_STAGE = {stage: place for place, stage in enumerate(STAGES)}
_BLUEPRINT = {blueprint: place for place, blueprint in enumerate(BLUEPRINTS)}

Features = np.ndarray[tuple[int], np.dtype[np.float32]]


def size(n_slots: int) -> int:
    """Length of an observation."""
    return HOST_FEATURES + n_slots * SLOT_FEATURES


def observe(
    accuracy: float,
    accuracy_before: float,
    loss: float,
    grad_norm: float,
    progress: float,
    growth: float,
    slots: Sequence[Slot],
) -> Features:
    """One observation. Accuracies are percent, the loss nats, progress and growth shares."""
    found = np.zeros(size(len(slots)), dtype=np.float32)
    found[:HOST_FEATURES] = (
        accuracy / 100.0,
        (accuracy - accuracy_before) / 10.0,
        loss / 3.0,
        math.log1p(grad_norm),
        progress,
        math.log1p(growth),
    )
    for place, slot in enumerate(slots):
        row = found[HOST_FEATURES + place * SLOT_FEATURES :][:SLOT_FEATURES]
        row[_STAGE[slot.stage]] = 1.0
        row[-6] = slot.epochs_in_stage / 10.0
        if slot.seed is not None:
            _describe(row, slot.seed)
    return np.clip(found, -CLIP, CLIP)


def _describe(row: Features, seed: Seed) -> None:
    row[len(STAGES) + _BLUEPRINT[seed.blueprint]] = 1.0
    row[-5:] = (
        seed.alpha,
        seed.target,
        float(seed.ramp.done),
        float(seed.fading),
        0.0 if seed.contribution is None else seed.contribution / 10.0,
    )


def statistics(batch: Sequence[Features]) -> dict[str, float | int]:
    """Health of one step's observations, as an event reports it."""
    table = np.stack(batch)
    host, slots = table[:, :HOST_FEATURES], table[:, HOST_FEATURES:]
    nans, infs = int(np.isnan(table).sum()), int(np.isinf(table).sum())
    return {
        "host_features_mean": float(host.mean()),
        "host_features_std": float(host.std()),
        "slot_features_mean": float(slots.mean()),
        "slot_features_std": float(slots.std()),
        "outlier_pct": float((np.abs(table) > 3.0).mean()),
        "near_clip_pct": float((np.abs(table) > 0.9 * CLIP).mean()),
        "clip_pct": float((np.abs(table) >= CLIP).mean()),
        "nan_count": nans,
        "inf_count": infs,
        "nan_pct": nans / table.size,
        "inf_pct": infs / table.size,
        "batch_size": len(batch),
    }
