"""A journal's directory: parts and segments, compaction, retention, verification."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esper_exporter.contract.jsonlines import MAX_LINE
from esper_exporter.journal.columns import ENDED, GPU_FAULT
from esper_exporter.journal.line_batch import Line
from esper_exporter.journal.part_files import MANIFEST, checksum, read_manifest
from esper_exporter.journal.parts import PartWriter
from esper_exporter.journal.segments import (
    FOLDER,
    SUFFIX,
    VERSION,
    SegmentState,
    is_being_written,
    read_segment,
)
from esper_exporter.journal.sources import JOURNAL

PARTS = "parts"
LOCK = "compact.lock"


def parts_of(journal: Path) -> list[Path]:
    """The directories of all parts, oldest first."""
    if (journal / MANIFEST).is_file():
        return [journal]
    return sorted(p for p in (journal / PARTS).glob("[!.]*") if (p / MANIFEST).is_file())


def sealed_parts(journal: Path) -> tuple[list[Path], list[str]]:
    """The readable parts, oldest first, and the defects of the others."""
    good, bad = [], []
    for part in parts_of(journal):
        try:
            manifest = read_manifest(part)
            for name, content in manifest["files"].items():
                if (part / name).stat().st_size != content["bytes"]:
                    raise ValueError(f"{part / name}: not the size that its manifest says")
        except (ValueError, OSError) as problem:
            bad.append(f"{problem}; left out")
            continue
        good.append(part)
    return good, bad


def open_segments(journal: Path) -> list[Path]:
    """The segments that are in no part yet, in the order in which they were begun."""
    done = set()
    for part in parts_of(journal):
        with suppress(ValueError):
            done |= set(read_manifest(part).get("segments", ()))
    found = (journal / FOLDER).glob(f"*{SUFFIX}")
    return sorted(path for path in found if path.name not in done)


@dataclass(slots=True)
class Segments:
    """Events of segments as lines of telemetry, and findings along the way."""

    warnings: list[str] = field(default_factory=list)
    alive: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    """When the process of a run was last known to live."""
    orphans: set[tuple[str, str, int]] = field(default_factory=set)
    """Runs whose process is gone and left no ending."""


def segment_lines(paths: list[Path], found: Segments) -> Iterator[Line]:
    """The events of segments, in order; numbering continues from one segment to the next."""
    seq = 0
    for path in paths:
        state = SegmentState()
        runs: dict[int, tuple[str, str, int]] = {}
        ended = False
        try:
            writing = is_being_written(path)
            for record in read_segment(path, state):
                kind = record.get("k")
                if kind == "run":
                    runs[record["i"]] = (record["r"], record["g"], record["n"])
                    continue
                if kind == "closed":
                    ended = True
                    continue
                if kind == "alive":
                    moment = datetime.fromtimestamp(record["t"], UTC)
                    found.alive.update(dict.fromkeys(runs.values(), moment))
                    continue
                run = runs.get(record.get("i", -1))
                if run is None:
                    continue
                seq += 1
                if kind == "end":
                    ended = True
                    found.orphans.discard(run)
                yield Line(seq, _as_line(record, run), (run[0], run[2]))
        except OSError as problem:
            found.warnings.append(f"{path}: {problem.strerror}; left out")
            continue
        except (KeyError, TypeError, ValueError) as problem:
            state.problem = f"a record without {problem}"
        if state.problem:
            found.warnings.append(f"{path}: {state.problem}; what came before that was read")
        if not writing and not ended:
            found.orphans |= set(runs.values())


def _as_line(record: dict[str, Any], run: tuple[str, str, int]) -> bytes:
    if record["k"] in ("end", "gpu"):
        ending = record["k"] == "end"
        names = ("reason", "detail", "exit_code", "signal")
        if not ending:
            names = ("gpu", "uuid", "kind", "count")
        content = {
            "event_type": ENDED if ending else GPU_FAULT,
            "timestamp": record["t"],
            "group_id": run[1],
            "data": {name: record[name] for name in names if name in record},
        }
        return json.dumps(content).encode()
    stamp = record["t"]
    content = {
        "event_id": record.get("e"),
        "event_type": record["n"],
        "timestamp": stamp if isinstance(stamp, str) else stamp.isoformat(),
        "seed_id": record.get("seed_id"),
        "slot_id": record.get("slot_id"),
        "epoch": record.get("epoch"),
        # Not the event's own, where that was wrong: the group of the run that it was counted for.
        "group_id": run[1],
        "message": record.get("message", ""),
        "data": record.get("d"),
        "severity": record.get("severity", "info"),
    }
    return json.dumps(content).encode()[: MAX_LINE + 1]


def build_part(paths: list[Path], part: Path, source: str, found: Segments) -> dict[str, Any]:
    """Turn segments into a part, and return its manifest."""
    writer = PartWriter(part, source)
    writer.feed(segment_lines(paths, found))
    alive = [[*run, moment.isoformat()] for run, moment in found.alive.items()]
    orphans = [list(run) for run in found.orphans]
    return writer.close(
        segments=[path.name for path in paths], alive=alive, orphans=sorted(orphans)
    )


def unsealed(journal: Path, scratch: Path, warnings: list[str]) -> list[Path]:
    """A temporary part made of the segments that are not compacted yet."""
    paths = open_segments(journal)
    if not paths:
        return []
    found = Segments()
    part = scratch / f"segments-{abs(hash(str(journal))):x}"
    build_part(paths, part, str(journal), found)
    warnings += found.warnings
    return [part]


@contextmanager
def _only_one(journal: Path) -> Iterator[bool]:
    """Whether this process is the only one that compacts or removes."""
    descriptor = os.open(journal / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def compact(journal: Path) -> tuple[int, list[str]]:
    """Turn the closed segments into a part; returns the number of events, and warnings.

    Readers see the segments or the part, never both and never neither. Raises OSError.
    """
    with _only_one(journal) as alone:
        if not alone:
            return 0, ["another process is compacting"]
        paths = [path for path in open_segments(journal) if not is_being_written(path)]
        count, warnings = 0, []
        if paths:
            found = Segments()
            beside = journal / PARTS / f".{paths[0].stem}.new"
            shutil.rmtree(beside, ignore_errors=True)
            manifest = build_part(paths, beside, str(journal), found)
            beside.replace(journal / PARTS / paths[0].stem)
            count, warnings = sum(manifest["rows"].values()), found.warnings
        compacted = set()
        for part in parts_of(journal):
            with suppress(ValueError):
                compacted |= set(read_manifest(part).get("segments", ()))
        for path in (journal / FOLDER).glob(f"*{SUFFIX}"):
            if path.name in compacted and not _damaged(path):
                path.unlink(missing_ok=True)
        return count, warnings


def _damaged(path: Path) -> bool:
    """Whether a segment is damaged; then it is kept for inspection."""
    state = SegmentState()
    for _ in read_segment(path, state):
        pass
    return state.problem is not None


def prune(journal: Path, max_age: float, max_bytes: int) -> list[Path]:
    """Remove the oldest parts: those older than ``max_age`` seconds, and as many as it takes to
    come below ``max_bytes``; 0 is no limit. Segments and the newest part stay. Raises OSError."""
    removed = []
    with _only_one(journal) as alone:
        if not alone:
            return []
        parts = parts_of(journal)
        sizes = {part: sum(file.stat().st_size for file in part.iterdir()) for part in parts}
        total = sum(sizes.values())
        for part in parts[:-1] if max_bytes and not max_age else parts:
            last = read_manifest(part)["last"]
            age = time.time() - datetime.fromisoformat(last).timestamp() if last else 0.0
            if (max_age and age > max_age) or (max_bytes and total > max_bytes):
                shutil.rmtree(part)
                removed.append(part)
                total -= sizes[part]
    return removed


def verify(journal: Path) -> tuple[list[str], int]:
    """The damage in a journal, and the number of files checked. Reads every byte."""
    bad: list[str] = []
    count = 0
    if not (journal / JOURNAL).is_file() and not (journal / MANIFEST).is_file():
        return [f"{journal}: no journal"], 0
    if (journal / JOURNAL).is_file():
        try:
            content = json.loads((journal / JOURNAL).read_text())
            if content["version"] != VERSION:
                bad.append(f"{journal / JOURNAL}: version {content['version']}, want {VERSION}")
        except (ValueError, KeyError, TypeError):
            bad.append(f"{journal / JOURNAL}: not readable")
    candidates = [journal] if (journal / MANIFEST).is_file() else []
    candidates += sorted((journal / PARTS).glob("[!.]*"))
    for part in candidates:
        count += 1
        try:
            manifest = read_manifest(part)
        except ValueError as problem:
            bad.append(str(problem))
            continue
        for name, content in manifest["files"].items():
            count += 1
            try:
                if checksum(part / name) != content:
                    bad.append(f"{part / name}: does not match its checksum")
            except OSError as problem:
                bad.append(f"{part / name}: {problem.strerror}")
    for path in sorted((journal / FOLDER).glob(f"*{SUFFIX}")):
        count += 1
        state = SegmentState()
        try:
            for _ in read_segment(path, state):
                pass
        except OSError as problem:
            state.problem = problem.strerror
        if state.problem:
            bad.append(f"{path}: {state.problem}")
    return bad, count
