"""The training's processes: this process and its descendants."""

from __future__ import annotations

import os

MOST_KNOWN = 4096


class Family:
    """Decides by process ids as this process sees them. In a container that hides the machine's
    process ids, the driver's ids mean nothing here, and no process matches."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._known: dict[int, bool] = {}

    def includes(self, pid: int) -> bool:
        """Whether a process is this process or a descendant."""
        if pid == self._own:
            return True
        known = self._known.get(pid)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[pid] = self._descends(pid)
        return known

    def _descends(self, pid: int) -> bool:
        import psutil

        try:
            return any(parent.pid == self._own for parent in psutil.Process(pid).parents())
        except psutil.Error:
            return False
