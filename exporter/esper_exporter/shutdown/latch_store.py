"""Latches on disk, by run: a run that is resumed in a new process still shows what happened.

Each process writes files of its own, so that two with the same run id never overwrite each other;
what is read is what all of them have seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from esper_exporter.shutdown.files import Files
from esper_exporter.state.latches import KINDS, Latch, Latches
from esper_exporter.state.run import RunIdentity

logger = logging.getLogger("esper_exporter")

VERSION = 1
KEEP_FILES = 200
SUFFIX = ".latches.json"


def _stem(identity: RunIdentity) -> str:
    """One a (run, group, rank), whatever characters their names have."""
    whole = "\0".join((identity.run_id, identity.group_id, str(identity.rank)))
    return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:32]


def _to_json(latch: Latch) -> dict[str, Any]:
    return {
        "updates": latch.updates,
        "first": latch.first.isoformat() if latch.first else None,
        "last": latch.last.isoformat() if latch.last else None,
        "first_update": latch.first_update,
    }


def _from_json(told: dict[str, Any]) -> Latch:
    update = told["first_update"]
    return Latch(
        updates=int(told["updates"]),
        first=_moment(told["first"]),
        last=_moment(told["last"]),
        first_update=None if update is None else int(update),
    )


def _moment(told: str | None) -> datetime | None:
    if told is None:
        return None
    moment = datetime.fromisoformat(told)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {told}")
    return moment


def _head(key: str) -> tuple[str, str]:
    head, _, kind = key.rpartition("/")
    if not head or kind not in KINDS:
        raise ValueError(f"no head's latch: {key}")
    return head, kind


def _merged(one: Latch, other: Latch) -> Latch:
    """What two processes saw. A resumed run goes on counting from what it read, so the larger
    count holds the smaller one."""
    firsts = [(latch.first, latch.first_update) for latch in (one, other) if latch.first]
    first, update = min(firsts, key=lambda each: each[0]) if firsts else (None, None)
    lasts = [latch.last for latch in (one, other) if latch.last]
    return Latch(
        updates=max(one.updates, other.updates),
        first=first,
        last=max(lasts) if lasts else None,
        first_update=update,
    )


@dataclass(frozen=True, slots=True)
class Record:
    """A run's latches, ready to be written."""

    name: str
    text: bytes


class LatchStore:
    """Keeps the latches of runs in a directory. Nothing it does raises: what cannot be written or
    read is a warning, and the training goes on."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._token = secrets.token_hex(4)

    def record(self, identity: RunIdentity, latches: Latches) -> Record:
        """What there is to write of a run."""
        told = {
            "version": VERSION,
            "run_id": identity.run_id,
            "group_id": identity.group_id,
            "rank": identity.rank,
            "heads": {
                f"{head}/{kind}": _to_json(latch)
                for (head, kind), latch in latches.heads.items()
                if latch.lit
            },
            "sources": {
                source: _to_json(latch) for source, latch in latches.sources.items() if latch.lit
            },
        }
        return Record(f"{_stem(identity)}.{self._token}{SUFFIX}", json.dumps(told).encode())

    def write(self, records: Iterable[Record]) -> None:
        """Write them, each synced before it takes its place."""
        for record in records:
            self._files.write(self._directory / record.name, record.text)
        self._files.keep_newest(self._directory, f"*{SUFFIX}", KEEP_FILES)

    def load(self, identity: RunIdentity, latches: Latches) -> bool:
        """Light the latches that were kept of a run; whether there were any."""
        found = False
        for path in self._kept(identity):
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                if told["version"] != VERSION:
                    raise ValueError(f"version {told['version']}, want {VERSION}")
                heads = {_head(key): _from_json(v) for key, v in told["heads"].items()}
                sources = {source: _from_json(v) for source, v in told["sources"].items()}
            except OSError as problem:
                logger.warning("latches could not be read from %s: %s", path, problem)
                continue
            except (ValueError, KeyError, TypeError, AttributeError) as problem:
                self._set_aside(path, problem)
                continue
            # Heads of the user's own are not known before the resumed run names them.
            for key in heads:
                latches.heads.setdefault(key, Latch())
            _bring(latches.heads, heads)
            _bring(latches.sources, sources)
            latches.changed = True
            found = True
        return found

    def _kept(self, identity: RunIdentity) -> Iterator[Path]:
        try:
            yield from sorted(self._directory.glob(f"{_stem(identity)}.*{SUFFIX}"))
        except OSError as problem:
            logger.warning("latches could not be read from %s: %s", self._directory, problem)

    def _set_aside(self, path: Path, problem: Exception) -> None:
        logger.warning("kept latches in %s are not usable (%s); set aside", path, problem)
        with suppress(OSError):
            path.replace(path.with_suffix(".corrupt"))


def _bring(known: dict[Any, Latch], kept: dict[Any, Latch]) -> None:
    for key, latch in kept.items():
        if key in known:
            known[key] = _merged(known[key], latch)
