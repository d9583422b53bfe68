"""The end of a process that could not push it: killed, crashed, or gone by ``os._exit``.

A run that pushes may be scraped by nobody. Its wrapper outlives it, reads its last page in the
share, and pushes that page once more, as the process itself would have done: with how it ended,
then the marks of the end of all its series. What the process could not send goes before.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter.agent.tracked_process import WRAPPER_SECONDS, TrackedProcess
from esper_exporter.daemon_thread import start_daemon

if TYPE_CHECKING:
    from esper_exporter.settings import Settings

logger = logging.getLogger("esper_exporter")

RENDER_SECONDS = 30.0
"""How long reading the page and loading the libraries may take, beside the push itself."""


class PushedEnds:
    """Pushes the ends of a wrapper's processes, each from its own thread.

    ``settings`` are those of the processes: their receiver, labels and state directory.
    """

    def __init__(self, share: Path, settings: Settings) -> None:
        self._share = share
        self._settings = settings
        self._threads: list[threading.Thread] = []
        self._begun: set[Path] = set()
        self._undelivered = False
        self._any = False

    def begin(self, directory: Path) -> None:
        """Push the end of the process of a directory, unless it did so itself. Harmless for one
        that was begun before."""
        if self._settings.push is None or directory in self._begun:
            return
        self._begun.add(directory)
        self._threads.append(start_daemon(lambda: self._guarded(directory), "esper-run-push"))

    def wait(self) -> bool:
        """Wait for the receiver, ``push_linger`` at most for each process; whether it has the end
        of at least one process, and of all that needed it."""
        deadline = time.monotonic() + self._settings.push_linger + RENDER_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        finished = not any(thread.is_alive() for thread in self._threads)
        return finished and self._any and not self._undelivered

    def _guarded(self, directory: Path) -> None:
        try:
            self._push(directory)
        except Exception as problem:
            self._undelivered = True
            logger.warning("the end of the training could not be pushed: %s", problem)

    def _push(self, directory: Path) -> None:
        process = TrackedProcess.open(self._share, directory)
        try:
            now = time.time()
            shown = process.refresh(now)
            if process.end is None:
                # This wrapper has no record of it, so nobody will: it died under a script.
                shown = process.refresh(now + WRAPPER_SECONDS)
            if not shown or process.alive or not process.unfinished:
                return
            last, ended = process.last_page(), process.ended_page()
        finally:
            process.close()
        self._any = True
        if not push_once(self._settings, process.identity.pid, last, ended):
            self._undelivered = True


def push_once(settings: Settings, pid: int, last: bytes, ended: bytes) -> bool:
    """Push the page of an ended process under its labels; whether the receiver has it.

    ``last`` is its page when it ended: series that ``ended`` has no more end there. Raises
    ValueError for settings that cannot be used.
    """
    from esper_exporter.push.options import push_options
    from esper_exporter.push.pusher import Pusher

    assert settings.push is not None
    delivered = threading.Event()
    pusher = Pusher(
        push_options(settings, settings.push, pid),
        lambda: ended,
        time.time,
        lambda counter, *labels, by=1.0: None,
        logger.warning,
        lambda: logger.exception("pushing the end of the training failed"),
        lambda moment: delivered.set(),
        before=last,
    )
    pusher.start()
    pusher.close(settings.push_linger)
    return delivered.is_set()
