"""Times of samples that never go back: not after a step of the clock, nor in the next process.

A receiver refuses a whole request for one sample that is older than its series' newest. A process
that is started again under the same ``instance`` begins where the one before has ended, whose last
samples, the marks of its series' end, lie a little ahead of its clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from esper_exporter.push.backlog import LAST

MOST_AHEAD = 120_000


class Timeline:
    """The newest time that was sent with one set of external labels, kept in ``directory`` (None:
    in memory alone). Milliseconds."""

    def __init__(self, directory: Path | None, labels: Mapping[str, str]) -> None:
        named = "\n".join(f"{name}={value}" for name, value in sorted(labels.items()))
        digest = hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[:16]
        self._path = None if directory is None else directory / f"{digest}{LAST}"
        self._last = 0
        if self._path is not None:
            with suppress(OSError, ValueError):
                self._last = int(self._path.read_text(encoding="ascii")[:20])

    def next(self, now: int, *, needed: bool = False) -> int | None:
        """The time for samples that are taken ``now``; None while samples of later are sent
        already, unless these are ``needed``: then just after those."""
        ahead = self._last - now
        if 0 <= ahead <= MOST_AHEAD:
            if not needed:
                return None
            now = self._last + 1
        # The clock was set back by more: what the receiver then says of it decides.
        self._last = now
        return now

    def end(self, moment: int) -> None:
        """The series have ended at ``moment``, which may lie ahead."""
        self._last = max(self._last, moment)
        if self._path is not None:
            with suppress(OSError):
                self._path.write_text(str(self._last), encoding="ascii")
