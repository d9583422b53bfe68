"""A journal as lines of telemetry: for `replay`, `page` and other readers of recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from esper_exporter.contract.event_table import TYPES
from esper_exporter.journal.journal_rows import part_rows
from esper_exporter.journal.store import Segments, open_segments, sealed_parts, segment_lines


def journal_lines(journal: Path, run_id: str | None = None) -> Iterator[bytes]:
    """The trainer's events of a journal, in order, each as a JSON line; of one run, or of all.

    Needs pyarrow where there are compacted parts. Leaves out damaged lines.
    """
    kinds = frozenset(TYPES)
    names = {name for row in TYPES.values() for name in row.names}
    for part in sealed_parts(journal)[0]:
        for row in part_rows(part, kinds):
            if run_id is None or row["run_id"] == run_id:
                yield _line(row)
    for line in segment_lines(open_segments(journal), Segments()):
        if run_id is not None and (line.run is None or line.run[0] != run_id):
            continue
        # The ending is the journal's, not the trainer's.
        if json.loads(line.text)["event_type"] in names:
            yield line.text


def _line(row: dict[str, Any]) -> bytes:
    stamp: datetime = row["timestamp"]
    event = {
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "timestamp": stamp.isoformat(),
        "seed_id": row["seed_id"],
        "slot_id": row["slot_id"],
        "epoch": row["epoch"],
        "group_id": row["group_id"],
        "message": row["message"],
        "data": row["data"] or None,
        "severity": row["severity"],
    }
    return json.dumps(event).encode()


def run_ids(journal: Path) -> list[str]:
    """The runs of a journal, in the order in which they began."""
    from esper_exporter.journal.reading import read_runs

    return list(dict.fromkeys(run.run_id for run in read_runs([journal])[0]))
