"""A pytest plugin that never lets a long run be silent: what runs, since when, how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

QUIET_SECONDS = 15.0
"""After so long without a finished test a line names what is running."""


class Progress:
    """Watches tests begin and end; under pytest-xdist in the controlling process only."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._changed = self._began
        self._running: dict[str, float] = {}
        self._wanted = 0
        self._done = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._wanted = max(self._wanted, len(session.items))

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._wanted = max(self._wanted, len(ids))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        self._thread.start()
        try:
            return (yield)
        finally:
            self._over.set()
            self._thread.join()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._done += 1
        self._changed = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            now = time.monotonic()
            if now - self._changed < QUIET_SECONDS:
                continue
            self._changed = now
            print(self._line(now), file=sys.__stdout__, flush=True)

    def _line(self, now: float) -> str:
        running = list(self._running.items())
        named = ", ".join(f"{nodeid.split('::', 1)[-1]} ({now - t:.0f} s)" for nodeid, t in running)
        of = f" of {self._wanted}" if self._wanted else ""
        return f"\n  … {now - self._began:.0f} s, {self._done}{of} tests done; running: {named}"


def pytest_configure(config: pytest.Config) -> None:
    """Register it, but not in the workers of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(), "esper-progress")
