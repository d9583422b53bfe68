"""One decision of the policy (Sanctum schema: DecisionSnapshot)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import ClassVar

import msgspec
from msgspec.structs import astuple

from esper_exporter.contract.analytics import AnalyticsSnapshotPayload, HeadTelemetry
from esper_exporter.contract.events import Event
from esper_exporter.contract.unexported import DECISION, LABEL, POSITION, Unexported
from esper_exporter.contract.vocabulary import HEADS, SPELLINGS
from esper_exporter.state.choices import choices_of

MAX_DECISIONS = 8
DECISION_EXPIRY_SECONDS = 120.0

_of_heads = itemgetter(
    *(
        HeadTelemetry.__struct_fields__.index(f"{SPELLINGS[head]}_{what}")
        for what in ("confidence", "entropy")
        for head in HEADS
    )
)


def head_values(telemetry: HeadTelemetry) -> tuple[float | None, ...]:
    """Confidence of each head, then entropy of each, from a decision's head telemetry."""
    found: tuple[float | None, ...] = _of_heads(astuple(telemetry))
    return found


@dataclass
class DecisionSnapshot:
    """What the policy saw, chose and got for it.

    Confidences are probabilities. ``value_residual`` is the reward less the value estimate;
    ``td_advantage`` is known only once the environment's next decision has come. ``choices`` and
    ``confidences`` are by head. ``decision_entropy`` is in nats; None: not measured.
    """

    timestamp: datetime
    slot_states: dict[str, str]
    host_accuracy: float
    chosen_action: str
    choices: dict[str, str]
    confidence: float | None
    expected_value: float | None
    actual_reward: float | None
    alternatives: list[tuple[str, float]]
    action_success: bool | None = None
    decision_id: str = ""
    env_id: int = 0
    episode: int = 0
    epoch: int = 0
    batch: int = 0
    value_residual: float | None = 0.0
    td_advantage: float | None = None
    decision_entropy: float | None = None
    confidences: dict[str, float] = field(default_factory=dict)
    unexported: ClassVar[Unexported] = {
        DECISION + "esper_tamiyo_decision_value, …_reward, …_value_residual, …_td_advantage,"
        " …_entropy_nats and …_confidence show them": (
            "host_accuracy confidence expected_value actual_reward action_success value_residual"
            " td_advantage decision_entropy"
        ),
        POSITION: "episode epoch batch",
        LABEL: "env_id",
        DECISION + "head show it: esper_tamiyo_decision_confidence_ratio": "confidences",
    }


class HeldDecision(msgspec.Struct, gc=False):
    """A decision as it came, and what was known then: it is taken apart at the next read."""

    event: Event
    payload: AnalyticsSnapshotPayload
    op: str
    env_id: int
    host_accuracy: float
    episode: int
    epoch: int
    batch: int
    td_advantage: float | None = None
    taken_apart: DecisionSnapshot | None = None

    def advantage(self, value: float) -> None:
        """Its TD advantage, known from the environment's next decision."""
        self.td_advantage = value
        if self.taken_apart is not None:
            self.taken_apart.td_advantage = value

    def snapshot(self) -> DecisionSnapshot:
        """The decision, the same object each time."""
        if self.taken_apart is None:
            self.taken_apart = self._take_apart()
        return self.taken_apart

    def _take_apart(self) -> DecisionSnapshot:
        payload = self.payload
        reward, value = payload.total_reward, payload.value_estimate
        values = () if payload.head_telemetry is None else head_values(payload.head_telemetry)
        reported = zip(HEADS, values, strict=False)
        return DecisionSnapshot(
            timestamp=self.event.timestamp,
            slot_states=dict(payload.slot_states or {}),
            host_accuracy=self.host_accuracy,
            chosen_action=self.op,
            choices=choices_of(payload),
            confidence=payload.action_confidence,
            expected_value=value,
            actual_reward=reward,
            alternatives=list(payload.alternatives or ()),
            action_success=payload.action_success,
            decision_id=(self.event.event_id or "")[:8],
            env_id=self.env_id,
            episode=self.episode,
            epoch=self.epoch,
            batch=self.batch,
            value_residual=None if reward is None or value is None else reward - value,
            td_advantage=self.td_advantage,
            decision_entropy=payload.decision_entropy,
            confidences={head: value for head, value in reported if value is not None},
        )


def expire_decisions(decisions: list[DecisionSnapshot], now: datetime) -> None:
    """Keep at most eight decisions, and none older than two minutes."""
    del decisions[MAX_DECISIONS:]
    while decisions and (now - decisions[-1].timestamp).total_seconds() > DECISION_EXPIRY_SECONDS:
        decisions.pop()
