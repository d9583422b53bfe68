"""Record in a process' journal how it ended, as seen from outside."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from esper_exporter.journal.segments import (
    FOLDER,
    SUFFIX,
    SegmentState,
    frame,
    new_segment,
    read_segment,
)

Run = tuple[str, str, int]
"""(run, group, rank)."""


def record_exit(
    journal: Path, pid: int, reason: str, exit_code: int | None, signal: int | None
) -> int:
    """Record how the process ``pid`` ended, for each of its runs whose end it did not record
    itself. Returns how many there were.

    ``reason`` is a value of ``esper_run_failed{reason}``, empty for a good end. Raises OSError.
    """
    runs: dict[Run, None] = {}
    ended = set()
    for path in sorted((journal / FOLDER).glob(f"*-{pid}-*{SUFFIX}")):
        known: dict[int, Run] = {}
        for record in read_segment(path, SegmentState()):
            if record.get("k") == "run":
                run = known[record["i"]] = (record["r"], record["g"], record["n"])
                runs[run] = None
            elif record.get("k") == "end":
                ended.add(known.get(record["i"]))
    missing = [run for run in runs if run not in ended]
    for run in missing:
        append_ending(journal, run, reason or "finished", exit_code, signal or None)
    return len(missing)


def append_ending(
    journal: Path,
    run: Run,
    reason: str,
    exit_code: int | None = None,
    signal: int | None = None,
    when: datetime | None = None,
) -> None:
    """Record how a run's process ended: a segment of one record. Raises OSError."""
    moment = when or datetime.now(UTC)
    entry = {"exit_code": exit_code, "signal": signal}
    entry = {name: value for name, value in entry.items() if value is not None}
    # Sorts after the segments of the process that ended.
    name = f"{moment:%Y%m%dT%H%M%S}-z{os.getpid()}-{secrets.token_hex(3)}-000001"
    segment = new_segment(journal, name)
    try:
        begin = {"k": "run", "i": 0, "r": run[0], "g": run[1], "n": run[2]}
        end = {"k": "end", "i": 0, "s": 0, "t": moment.timestamp(), "reason": reason, "detail": ""}
        segment.write(frame(begin) + frame(end | entry))
    finally:
        segment.close()
