"""The probe's events on their way to the exporter, under domain names and, if asked, old ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from esper_exporter.contract.event_table import ALIASES

_OLD_NAMES = {new: old for old, new in ALIASES.items()}
_TIMES = {
    "forward": "forward_time_ms",
    "backward": "backward_time_ms",
    "optimizer": "optimizer_step_time_ms",
    "data_transfer": "data_transfer_time_ms",
    "epoch": "host_epoch_time_ms",
}
STARTED: Mapping[str, Any] = {
    "n_envs": 1,
    "max_epochs": 0,
    "max_batches": 0,
    "task": "",
    "host_params": 0,
    "slot_ids": (),
    "reward_mode": "",
}
"""Fields that the contract requires of TRAINING_STARTED and that a loop may not have."""


class Sink(Protocol):
    """Receives the events: an Exporter."""

    def emit(self, event: object) -> None:
        """Receive one event."""


class Emitter:
    """Emits events; the exporter counts its failures, which raise nothing."""

    def __init__(
        self,
        sink: Sink,
        group_id: str,
        dual_emit: bool,
        clock: Callable[[], datetime],
        heads: tuple[str, ...],
    ) -> None:
        self._sink = sink
        self.group_id = group_id
        self._dual_emit = dual_emit
        self._clock = clock
        self._heads = heads

    def emit(self, name: str, data: Mapping[str, Any]) -> None:
        """Emit one event, as of now."""
        try:
            event = {"timestamp": self._clock(), "group_id": self.group_id, "data": dict(data)}
            self._sink.emit({"event_type": name, **event})
            if self._dual_emit and name in _OLD_NAMES:
                self._sink.emit({"event_type": _OLD_NAMES[name], **event})
        except Exception:
            self.failed()

    def anomaly(self, kind: str, detail: str, batch: int, index: int) -> None:
        """Emit an anomaly: non-finite sources, or a skipped update."""
        self.emit(
            "NUMERICAL_INSTABILITY_DETECTED",
            {
                "anomaly_type": kind,
                "episode": 0,
                "batch": batch,
                "inner_epoch": index,
                "total_episodes": 0,
                "detail": f"Sources: {detail}" if detail else None,
                "action_heads": self._heads,
            },
        )

    def incomplete(self, reason: str, batch: int, index: int) -> None:
        """Emit an update that was measured and not completed."""
        self.emit(
            "NUMERICAL_INSTABILITY_DETECTED",
            {
                "anomaly_type": "update_incomplete",
                "episode": 0,
                "batch": batch,
                "inner_epoch": index,
                "total_episodes": 0,
                "detail": reason,
                "action_heads": self._heads,
            },
        )

    def failed(self) -> None:
        """Count the error that is being handled."""
        count = getattr(self._sink, "probe_failed", None)
        if count is not None:
            count()


def host_times(times_ms: Mapping[str, float] | None) -> dict[str, float]:
    """Times by phase as the fields of a host's epoch."""
    return {_TIMES[phase]: ms for phase, ms in (times_ms or {}).items() if phase in _TIMES}
