"""Latches on disk, by run: a run that is resumed in a new process still shows what happened."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from esper_exporter.state.latches import Latch, Latches
from esper_exporter.state.run import RunIdentity

logger = logging.getLogger("esper_exporter")

VERSION = 1
KEEP_FILES = 200


def _file_name(identity: RunIdentity) -> str:
    """One file a (run, group, rank), whatever characters their names have."""
    whole = "\0".join((identity.run_id, identity.group_id, str(identity.rank)))
    return f"{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()[:32]}.latches.json"


def _to_json(latch: Latch) -> dict[str, Any]:
    return {
        "updates": latch.updates,
        "first": latch.first.isoformat() if latch.first else None,
        "last": latch.last.isoformat() if latch.last else None,
        "first_update": latch.first_update,
    }


def _from_json(told: dict[str, Any]) -> Latch:
    return Latch(
        updates=int(told["updates"]),
        first=datetime.fromisoformat(told["first"]) if told["first"] else None,
        last=datetime.fromisoformat(told["last"]) if told["last"] else None,
        first_update=told["first_update"],
    )


class LatchStore:
    """Keeps the latches of runs in a directory. Nothing it does raises: what cannot be written or
    read is a warning, and the training goes on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, identity: RunIdentity, latches: Latches) -> None:
        """Write a run's latches: a new file beside the old one, synced, then put in its place."""
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
        path = self._directory / _file_name(identity)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as out:
                json.dump(told, out)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(path)
            self._prune()
        except OSError as problem:
            logger.warning("latches could not be kept in %s: %s", self._directory, problem)

    def load(self, identity: RunIdentity, latches: Latches) -> bool:
        """Light the latches that were kept of a run; whether there were any."""
        path = self._directory / _file_name(identity)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["version"] != VERSION:
                raise ValueError(f"version {told['version']}, want {VERSION}")
            heads = {tuple(key.split("/")): _from_json(v) for key, v in told["heads"].items()}
            sources = {source: _from_json(v) for source, v in told["sources"].items()}
        except FileNotFoundError:
            return False
        except OSError as problem:
            logger.warning("latches could not be read from %s: %s", path, problem)
            return False
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            self._set_aside(path, problem)
            return False
        latches.heads.update({key: v for key, v in heads.items() if key in latches.heads})
        latches.sources.update({key: v for key, v in sources.items() if key in latches.sources})
        latches.changed = True
        return True

    def _set_aside(self, path: Path, problem: Exception) -> None:
        logger.warning("kept latches in %s are not usable (%s); set aside", path, problem)
        try:
            path.replace(path.with_suffix(".corrupt"))
        except OSError:
            logger.warning("%s could not be set aside", path)

    def _prune(self) -> None:
        """Forget the oldest files beyond the number kept."""
        files = sorted(
            self._directory.glob("*.latches.json"), key=lambda file: file.stat().st_mtime
        )
        for file in files[:-KEEP_FILES]:
            file.unlink(missing_ok=True)
