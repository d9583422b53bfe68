"""The telemetry hub that delivers a run's events: emptied at the end, and what it dropped.

esper's hub queues events and calls each backend on a worker thread, so the training may be several
events ahead of the exporter, and may end before the last of them arrive. The hub drops events that
find a queue full, and counts them itself. Source: ``NissaHub`` in esper's ``nissa/output.py``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from esper_exporter.daemon_thread import start_daemon

FLUSH_SECONDS = 2.0
"""How long all waits of one process for its hub take together."""
GRACE_SECONDS = 0.2
"""Beyond the timeout that the hub was asked to keep."""
CALLERS = 3
MOST_BACKENDS = 32
OWN_QUEUE = "hub"
"""The label value of the queue that all backends share."""


@runtime_checkable
class Hub(Protocol):
    """What is used of a hub."""

    def flush(self, timeout: float | None = None) -> object:
        """Wait until every queued event was delivered, at most ``timeout`` seconds."""

    def get_health_snapshot(self) -> Mapping[str, Any]:
        """``hub_dropped_events`` and, by backend, ``backend_stats``."""


@dataclass(frozen=True, slots=True)
class HubHealth:
    """What a hub counted so far: events by queue."""

    dropped: Mapping[str, float]
    """Events that found a queue full, or that a backend refused with an exception."""
    delivered: Mapping[str, float]


class HubLink:
    """One exporter's hub, if it has one. Nothing here raises; what the hub raises is reported to
    ``on_error`` while it is handled."""

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error
        self._hub: Hub | None = None
        self._left = FLUSH_SECONDS

    def use(self, hub: object) -> None:
        """Use a hub from now on. Raises TypeError for what is no hub."""
        if not isinstance(hub, Hub):
            raise TypeError("a hub has flush(timeout) and get_health_snapshot()")
        self._hub = hub

    def use_caller(self) -> None:
        """Use the hub in whose ``add_backend`` the caller is called, if it is called there.

        A hub starts its backends and hands them no reference to itself.
        """
        try:
            frame = sys._getframe(2)
            for _ in range(CALLERS):
                caller = frame.f_locals.get("self")
                if frame.f_code.co_name == "add_backend" and isinstance(caller, Hub):
                    self.use(caller)
                    return
                if frame.f_back is None:
                    return
                frame = frame.f_back
        except Exception:
            self._on_error()

    def flush(self) -> None:
        """Wait until the hub has delivered what it was given, within what is left of
        `FLUSH_SECONDS`."""
        hub = self._hub
        if hub is None or self._left <= 0:
            return
        begun = time.monotonic()
        done = threading.Event()
        call = partial(self._flush, hub, self._left, done)
        try:
            start_daemon(call, "esper-exporter-hub")
        except RuntimeError:  # the interpreter starts no thread any more
            call()
        done.wait(self._left + GRACE_SECONDS)
        self._left -= time.monotonic() - begun

    def _flush(self, hub: Hub, seconds: float, done: threading.Event) -> None:
        try:
            hub.flush(timeout=seconds)
        except Exception:
            self._on_error()
        finally:
            done.set()

    def health(self) -> HubHealth | None:
        """What the hub has counted; None without a hub, or where it does not say."""
        if self._hub is None:
            return None
        try:
            return _read(self._hub.get_health_snapshot())
        except Exception:
            self._on_error()
            return None


def _read(reported: Mapping[str, Any]) -> HubHealth:
    dropped = {OWN_QUEUE: float(reported["hub_dropped_events"])}
    delivered = {}
    for name, stats in list(reported["backend_stats"].items())[:MOST_BACKENDS]:
        dropped[str(name)] = float(stats["dropped_events"])
        delivered[str(name)] = float(stats["processed_events"])
    return HubHealth(dropped, delivered)
