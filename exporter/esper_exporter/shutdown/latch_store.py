"""Latches on disk, by run: a run that is resumed in a new process still shows what happened.

Each process writes its own files, so that two with the same run id never overwrite each other;
what is read is what all of them have seen.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from esper_exporter.atomic_file import Files
from esper_exporter.shutdown.latch_json import Kept, decode, encode
from esper_exporter.state.latches import Latch, Latches
from esper_exporter.state.registry import LatchRecord
from esper_exporter.state.run import RunIdentity

logger = logging.getLogger("esper_exporter")

KEEP_FILES = 200
KEEP_CORRUPT = 20
LARGEST_FILE = 1 << 20
SUFFIX = ".latches.json"


def _stem(identity: RunIdentity) -> str:
    """One a (run, group, rank), whatever characters their names have."""
    whole = "\0".join((identity.run_id, identity.group_id, str(identity.rank)))
    return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:32]


def _merged(one: Latch, other: Latch) -> Latch:
    """What two processes saw. A resumed run continues counting from what it read, so the larger
    count holds the smaller one."""
    if not one.lit:
        return other
    firsts = [(latch.first, latch) for latch in (one, other) if latch.first]
    earliest = min(firsts, key=lambda each: each[0])[1] if firsts else Latch()
    lasts = [latch.last for latch in (one, other) if latch.last]
    return Latch(
        updates=max(one.updates, other.updates),
        first=earliest.first,
        last=max(lasts) if lasts else None,
        first_update=earliest.first_update,
        first_batch=earliest.first_batch,
    )


class LatchStore:
    """Keeps the latches of runs in a directory. Nothing it does raises: what cannot be written or
    read is a warning, and the training continues. ``on_dropped`` gets ``file`` for each file and
    ``field`` for each field that could not be used."""

    def __init__(
        self, directory: Path, files: Files, on_dropped: Callable[[str], None] = lambda _what: None
    ) -> None:
        self._directory = directory
        self._files = files
        self._on_dropped = on_dropped
        self._token = secrets.token_hex(4)

    def record(self, identity: RunIdentity, latches: Latches) -> LatchRecord:
        """What there is to write of a run."""
        return LatchRecord(f"{_stem(identity)}.{self._token}{SUFFIX}", encode(identity, latches))

    def write(self, records: Iterable[LatchRecord]) -> bool:
        """Write them, each synced before it takes its place; return whether all were written."""
        written = [
            self._files.write(self._directory / record.name, record.text) for record in records
        ]
        self._files.keep_newest(self._directory, f"*{SUFFIX}", KEEP_FILES)
        return all(written)

    def load(self, identity: RunIdentity, latches: Latches) -> bool:
        """Light the latches that were kept of a run; whether there were any."""
        found = False
        for path in self._kept(identity):
            kept = self._read(path)
            if kept is None:
                continue
            # Heads of the user's own are not known before the resumed run names them.
            for key in kept.heads:
                latches.heads.setdefault(key, Latch())
            _bring(latches.heads, kept.heads)
            _bring(latches.sources, kept.sources)
            latches.changed = True
            found = True
        return found

    def _read(self, path: Path) -> Kept | None:
        try:
            kept = decode(self._files.read(path, LARGEST_FILE))
        except OSError as problem:
            logger.warning("latches could not be read from %s: %s", path, problem)
            self._on_dropped("file")
            return None
        except (ValueError, MemoryError) as problem:
            self._set_aside(path, problem)
            self._on_dropped("file")
            return None
        if kept.dropped:
            logger.warning(
                "%d fields of the latches kept in %s make no sense; the others are used",
                kept.dropped,
                path,
            )
            for _ in range(kept.dropped):
                self._on_dropped("field")
        return kept

    def _kept(self, identity: RunIdentity) -> Iterator[Path]:
        try:
            yield from sorted(self._directory.glob(f"{_stem(identity)}.*{SUFFIX}"))
        except OSError as problem:
            logger.warning("latches could not be read from %s: %s", self._directory, problem)

    def _set_aside(self, path: Path, problem: Exception) -> None:
        logger.warning("kept latches in %s are not usable (%s); set aside", path, problem)
        with suppress(OSError):
            path.replace(path.with_suffix(".corrupt"))
        self._files.keep_newest(self._directory, "*.corrupt", KEEP_CORRUPT)


def _bring(known: dict[Any, Latch], kept: dict[Any, Latch]) -> None:
    for key, latch in kept.items():
        if key in known:
            known[key] = _merged(known[key], latch)
