"""Record in a process' journal how it ended, as seen from outside."""

from __future__ import annotations

from pathlib import Path

from esper_exporter.journal.segments import FOLDER, SUFFIX, SegmentState, read_segment
from esper_exporter.journal.writer import append_ending


def record_exit(
    journal: Path, pid: int, reason: str, exit_code: int | None, signal: int | None
) -> int:
    """Record how the process ``pid`` ended, for each of its runs whose end it did not record
    itself. Returns how many there were.

    ``reason`` is a value of ``esper_run_failed{reason}``, empty for a good end. Raises OSError.
    """
    runs: dict[tuple[str, str, int], None] = {}
    ended = set()
    for path in sorted((journal / FOLDER).glob(f"*-{pid}-*{SUFFIX}")):
        known: dict[int, tuple[str, str, int]] = {}
        for record in read_segment(path, SegmentState()):
            if record.get("k") == "run":
                run = known[record["i"]] = (record["r"], record["g"], record["n"])
                runs[run] = None
            elif record.get("k") == "end":
                ended.add(known.get(record["i"]))
    missing = [run for run in runs if run not in ended]
    for run_id, group_id, rank in missing:
        append_ending(
            journal,
            run_id,
            group_id,
            rank,
            reason or "finished",
            exit_code=exit_code,
            signal=signal or None,
        )
    return len(missing)
