"""The last page on disk: what a scrape would have seen, for when none is possible.

It is written when a latch is lit and when the run ends, so that even SIGKILL leaves it. Beside the
latches for a person, and where node_exporter's textfile collector reads it, which makes it
a page that is scraped after the process' death.
"""

from __future__ import annotations

import hashlib
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from esper_exporter.atomic_file import Files

KEEP_FILES = 50
KEEP_EARLIER = 5
"""How many pages of earlier processes of one run stay beside its newest."""
KEEP_SECONDS = 24 * 3600.0
"""How long a page stays in the textfile directory: as long as the alerts look back."""
SUFFIX = ".final.prom"


def page_name(run_id: str, rank: int) -> str:
    """A distinct file name for each run and rank, whatever characters the id has."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", run_id)[:80]
    if plain != run_id:
        plain += "-" + hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest()[:8]
    return f"esper-{plain}-rank{rank}"


class FinalPages:
    """Writes final pages. Nothing it does raises."""

    def __init__(self, state_dir: Path | None, textfile_dir: Path | None, files: Files) -> None:
        self._state_dir = state_dir
        self._textfile_dir = textfile_dir
        self._files = files
        self._written: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is anywhere to write to."""
        return self._state_dir is not None or self._textfile_dir is not None

    def write(self, name: str, page: bytes) -> None:
        """Write a page in Prometheus' text format under a name from `page_name`."""
        if self._state_dir is not None:
            if name not in self._written:
                self._written.add(name)
                self._keep_earlier(self._state_dir, name)
            self._files.write(self._state_dir / f"{name}{SUFFIX}", page)
            self._files.keep_newest(self._state_dir, f"esper-*{SUFFIX}", KEEP_FILES)
        if self._textfile_dir is not None:
            # One page a run: two would show node_exporter the same series twice.
            self._files.write(self._textfile_dir / f"{name}.prom", page)
            self._files.keep_younger(self._textfile_dir, "esper-*.prom", KEEP_SECONDS)

    def _keep_earlier(self, directory: Path, name: str) -> None:
        """Put the page of the process before this one aside, under the time it was written."""
        path = directory / f"{name}{SUFFIX}"
        with suppress(OSError, ValueError, OverflowError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                written = datetime.fromtimestamp(status.st_mtime, UTC)
                path.replace(directory / f"{name}.{written:%Y%m%dT%H%M%S.%fZ}{SUFFIX}")
        self._files.keep_newest(directory, f"{name}.*Z{SUFFIX}", KEEP_EARLIER)
