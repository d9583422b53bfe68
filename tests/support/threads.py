"""Threads of exporters in this process."""

from __future__ import annotations

import threading

_SAMPLERS = frozenset(f"esper-exporter-{name}" for name in ("gpu", "xid", "host", "disks"))


def exporter_threads() -> list[str]:
    """Names of the exporters' threads that run now.

    Without the samplers: they end after the call of the driver in which they are, seconds after
    their exporter, so that one of an earlier test may still be there.
    """
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("esper-exporter") and thread.name not in _SAMPLERS
    ]
