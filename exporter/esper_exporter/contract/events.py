"""The envelope of an event, the names of all events of both ages, and which names mean the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

RENAMED = {
    "PPO_UPDATE_COMPLETED": "TAMIYO_POLICY_UPDATE",
    "EPOCH_COMPLETED": "TOLARIA_EPOCH_COMPLETED",
    "BATCH_EPOCH_COMPLETED": "TOLARIA_BATCH_COMPLETED",
    "GOVERNOR_ROLLBACK": "TOLARIA_ROLLBACK",
}
"""Old names and the domain names that replace them; during the migration both are emitted."""

EVENT_TYPES = frozenset(
    {
        *RENAMED,
        *RENAMED.values(),
        "SEED_GERMINATED",
        "SEED_STAGE_CHANGED",
        "SEED_GATE_EVALUATED",
        "SEED_FOSSILIZED",
        "SEED_PRUNED",
        "PHASE_PROFILE_COMPLETED",
        "PLATEAU_DETECTED",
        "DEGRADATION_DETECTED",
        "IMPROVEMENT_DETECTED",
        "TAMIYO_INITIATED",
        "GRADIENT_ANOMALY",
        "PERFORMANCE_DEGRADATION",
        "MEMORY_WARNING",
        "REWARD_HACKING_SUSPECTED",
        "RATIO_EXPLOSION_DETECTED",
        "RATIO_COLLAPSE_DETECTED",
        "VALUE_COLLAPSE_DETECTED",
        "GRADIENT_PATHOLOGY_DETECTED",
        "NUMERICAL_INSTABILITY_DETECTED",
        "MORPHOLOGY_CAUSAL_LOG",
        "TOPOLOGY_MANIFEST_RECORDED",
        "TRAINING_STARTED",
        "CHECKPOINT_LOADED",
        "COUNTERFACTUAL_MATRIX_COMPUTED",
        "ANALYTICS_SNAPSHOT",
        "EPISODE_OUTCOME",
        "ALLOCATOR_STATS",
        "INFRASTRUCTURE_SNAPSHOT",
    }
)

PHANTOM_GROUP_TYPES = frozenset(
    {"TAMIYO_INITIATED", "TOLARIA_ROLLBACK", "REWARD_HACKING_SUSPECTED"}
)
"""Canonical types that are emitted with group "default" whatever the run's group is."""

DEFAULT_GROUP = "default"


def canonical(name: str) -> str:
    """The one name of an event type, whichever age it came from."""
    return RENAMED.get(name, name)


class Event(msgspec.Struct, frozen=True):
    """One event as the rest of the program knows it.

    ``name`` is the name it came with, ``type`` its canonical name. ``data`` is the payload of that
    type, or None where it may come without. ``ignored`` names the optional fields whose value made
    no sense and was left out.
    """

    name: str
    type: str
    timestamp: datetime
    event_id: str | None
    group_id: str
    seed_id: str | None
    slot_id: str | None
    epoch: int | None
    message: str
    severity: str
    data: Any
    ignored: tuple[str, ...] = ()
