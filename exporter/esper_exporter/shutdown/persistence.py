"""What must outlive the process: the latches of its runs, and its last page."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from esper_exporter.atomic_file import Files
from esper_exporter.daemon_thread import start_daemon
from esper_exporter.shutdown.final_page import FinalPages, page_name
from esper_exporter.shutdown.latch_store import LatchStore
from esper_exporter.state.registry import LatchRecord
from esper_exporter.state.run import RunIdentity

SECONDS_BETWEEN_SAVES = 10.0
SECONDS_UNTIL_SAVED_AGAIN = 10.0
"""After a disk that was full, or away."""

State = tuple[Sequence[LatchRecord], RunIdentity | None]
"""The latches to write, and the run under whose name the page is written, if there is one."""


class Persistence:
    """Writes latches and final pages, each in a directory or nowhere. None of it raises for what
    the file system does.

    Thread-safe: what is on disk in the end is as new as the newest call of any thread.
    ``on_problem`` gets ``file`` or ``field`` for what could not be read, ``unwritable`` for what
    could not be written.
    """

    def __init__(
        self,
        state_dir: Path | None,
        textfile_dir: Path | None,
        on_problem: Callable[[str], None] = lambda _what: None,
    ) -> None:
        files = Files(lambda: on_problem("unwritable"))
        self.store = LatchStore(state_dir, files, on_problem) if state_dir is not None else None
        self._final = FinalPages(state_dir, textfile_dir, files)
        self._saved_at: float | None = None
        self._writing = threading.RLock()
        self._depth = 0
        self._again = False
        self._unsaved: Sequence[LatchRecord] = ()
        self._retrying: threading.Thread | None = None

    def after_fork_in_child(self) -> None:
        """Begin with a free lock: its holder may not be in the child."""
        self._writing = threading.RLock()
        self._depth = 0
        self._retrying = None

    @property
    def due(self) -> bool:
        """Whether what only changed a count should be written by now."""
        return self._saved_at is None or time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES

    def save(self, state: Callable[[], State], render: Callable[[], bytes]) -> None:
        """Write the latches and the page as they are now."""
        # The state is read within: a thread that read it earlier must not write it later.
        with self._writing:
            self._again = True
            if self._depth:
                return  # a signal handler's or a finalizer's event: the interrupted call continues
            self._depth += 1
            try:
                while self._again:
                    self._again = False
                    self._save(state, render)
            finally:
                self._depth -= 1

    def _save(self, state: Callable[[], State], render: Callable[[], bytes]) -> None:
        self._saved_at = time.monotonic()
        records, run = state()
        if self.store is not None and records:
            self._unsaved = () if self.store.write(records) else records
            if self._unsaved and self._retrying is None:
                self._retrying = start_daemon(
                    partial(_retry, weakref.ref(self)), "esper-exporter-latches"
                )
        if run is not None and self._final.wanted:
            self._final.write(page_name(run.run_id, run.rank), render())

    def save_again(self) -> bool:
        """Try to write what could not be written; return whether nothing is left of it."""
        with self._writing:
            if self.store is not None and self._unsaved and self.store.write(self._unsaved):
                self._unsaved = ()
            if not self._unsaved:
                self._retrying = None
            return not self._unsaved


def _retry(reference: weakref.ref[Persistence]) -> None:
    """Write latches as soon as their disk has room, for as long as their owner lives."""
    while True:
        time.sleep(SECONDS_UNTIL_SAVED_AGAIN)
        persistence = reference()
        if persistence is None or persistence.save_again():
            return
        del persistence
