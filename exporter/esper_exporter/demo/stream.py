"""Send the demo's events to the exporter and to a telemetry file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, Protocol

from esper_exporter.contract.event_table import ALIASES

_OLD_NAMES = {new: old for old, new in ALIASES.items()}


class Sink(Protocol):
    """A receiver of events: an Exporter."""

    def emit(self, event: object) -> None:
        """Receive an event."""

    def probe_failed(self) -> None:
        """Count an error of the probe."""


class Stream:
    """Completes events to the form of the real system's telemetry and passes them on.

    It writes one JSON object per line to ``file``, NaN and infinities as bare tokens. The probe
    emits to it as well.
    """

    def __init__(
        self,
        sink: Sink,
        file: IO[str] | None,
        dual_emit: bool,
    ) -> None:
        self._sink = sink
        self._file = file
        self._dual_emit = dual_emit

    def emit(self, event: object) -> None:
        """Receive an event of the probe, which has a type, a time and data."""
        assert isinstance(event, dict)
        full = {
            "event_id": str(uuid.uuid4()),
            "seed_id": None,
            "slot_id": None,
            "epoch": None,
            "message": "",
            "severity": "info",
            **event,
        }
        self._sink.emit(full)
        if self._file is not None:
            written = {**full, "timestamp": full["timestamp"].isoformat()}
            self._file.write(json.dumps(written) + "\n")

    def probe_failed(self) -> None:
        self._sink.probe_failed()

    def record(self, name: str, data: Mapping[str, Any], **envelope: Any) -> None:
        """Emit an event of the demo, now; ``envelope`` has slot, seed, epoch …"""
        event = {
            "timestamp": datetime.now(UTC),
            "group_id": "default",
            "data": dict(data),
            **envelope,
        }
        self.emit({"event_type": name, **event})
        if self._dual_emit and name in _OLD_NAMES:
            self.emit({"event_type": _OLD_NAMES[name], **event})

    def flush(self) -> None:
        """Flush the file."""
        if self._file is not None:
            self._file.flush()
