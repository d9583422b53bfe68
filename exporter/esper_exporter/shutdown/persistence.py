"""What must outlive the process: the latches of its runs, and its last page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from esper_exporter.shutdown.files import Files
from esper_exporter.shutdown.final_page import FinalPages, page_name
from esper_exporter.shutdown.latch_store import LatchStore, Record
from esper_exporter.state.run import RunIdentity

SECONDS_BETWEEN_SAVES = 10.0


class Keeper:
    """Writes latches and final pages, each in a directory or nowhere. None of it raises for what
    the file system does."""

    def __init__(self, state_dir: Path | None, textfile_dir: Path | None) -> None:
        files = Files()
        self.store = LatchStore(state_dir, files) if state_dir is not None else None
        self._final = FinalPages(state_dir, textfile_dir, files)
        self._saved_at: float | None = None

    @property
    def due(self) -> bool:
        """Whether what only changed a count should be written by now."""
        return self._saved_at is None or time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES

    def keep(
        self, records: Sequence[Record], run: RunIdentity | None, render: Callable[[], bytes]
    ) -> None:
        """Write these latches, and the page under the name of a run, if there is one."""
        self._saved_at = time.monotonic()
        if self.store is not None and records:
            self.store.write(records)
        if run is not None and self._final.wanted:
            self._final.write(page_name(run.run_id, run.rank), render())
