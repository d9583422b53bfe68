"""Events of a journal, as `explain` reads them: from its Parquet parts and its segments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Any

from esper_exporter.journal.columns import Table, table_of_name, tables
from esper_exporter.journal.part_files import read_manifest
from esper_exporter.journal.parts import ROW_COLUMNS
from esper_exporter.journal.record import ALIVE, ORPHAN
from esper_exporter.journal.store import Segments, open_segments, sealed_parts, segment_lines

Row = dict[str, Any]
OnRun = Callable[[str, str, int, datetime, int], None]
"""Called with run, group, rank, time and number of a run's newest event of any kind."""


def journal_rows(
    journal: Path, wanted: frozenset[str], warnings: list[str], on_run: OnRun
) -> Iterator[Row]:
    """The events of the wanted types, in the order in which they were accepted.

    Needs pyarrow. Leaves out what it cannot read and says so in ``warnings``.
    """
    parts, damaged = sealed_parts(journal)
    warnings += damaged
    seq = 0
    for part in parts:
        last = seq
        for row in part_rows(part, wanted):
            row["seq"] += seq
            last = row["seq"]
            yield row
        for run, group, rank, moment, number in _newest(part):
            on_run(run, group, rank, moment, number + seq)
            last = max(last, number + seq)
        seq = last
        manifest = read_manifest(part)
        yield from _lives(manifest.get("alive", ()), manifest.get("orphans", ()))
    found = Segments()
    for line in segment_lines(open_segments(journal), found):
        assert line.run is not None
        event = json.loads(line.text)
        stamp = event["timestamp"]
        if isinstance(stamp, str):
            event["timestamp"] = datetime.fromisoformat(stamp)
        else:
            event["timestamp"] = datetime.fromtimestamp(stamp, UTC)
        run_id, rank = line.run
        event |= {"seq": line.seq + seq, "run_id": run_id, "rank": rank}
        event["data"] = {k: v for k, v in (event["data"] or {}).items() if v is not None}
        if table_of_name()[event["event_type"]].type in wanted:
            yield event
        on_run(run_id, event["group_id"], rank, event["timestamp"], event["seq"])
    warnings += found.warnings
    alive = [[*run, moment.isoformat()] for run, moment in found.alive.items()]
    yield from _lives(alive, [list(run) for run in found.orphans])


def _lives(alive: Iterable[list[Any]], orphans: Iterable[list[Any]]) -> Iterator[Row]:
    for run_id, group, rank, moment in alive:
        yield {
            "event_type": ALIVE,
            "timestamp": datetime.fromisoformat(moment),
            "run_id": run_id,
            "group_id": group,
            "rank": rank,
        }
    for run_id, group, rank in orphans:
        yield {"event_type": ORPHAN, "run_id": run_id, "group_id": group, "rank": rank}


def part_rows(part: Path, wanted: frozenset[str]) -> Iterator[Row]:
    """The events of one part."""
    held = [
        _table_rows(part / f"{kind}.parquet", table)
        for kind, table in tables().items()
        if kind in wanted and (part / f"{kind}.parquet").is_file()
    ]
    yield from merge(*held, key=lambda row: row["seq"])


def _table_rows(file: Path, table: Table) -> Iterator[Row]:
    import pyarrow.parquet as pq

    texts = {column.name for column in table.columns if column.shape == "JSON"}
    maps = {column.name for column in table.columns if str(column.shape).startswith("MAP")}
    for batch in pq.ParquetFile(file).iter_batches(batch_size=2048):
        for row in batch.to_pylist():
            data = {
                name: json.loads(value) if name in texts else dict(value) if name in maps else value
                for name, value in row.items()
                if value is not None and name not in ROW_COLUMNS
            }
            stamp = row["_timestamp"]
            yield {
                "event_type": row["_event_type"],
                "timestamp": (stamp or datetime.fromtimestamp(0)).replace(tzinfo=UTC),
                "group_id": row["_group_id"],
                "run_id": row["_run_id"],
                "rank": row["_rank"],
                "seq": row["_seq"],
                "event_id": row["_event_id"],
                "seed_id": row["_seed_id"],
                "slot_id": row["_slot_id"],
                "epoch": row["_epoch"],
                "message": row["_message"],
                "severity": row["_severity"],
                "data": data,
            }


def _newest(part: Path) -> Iterator[tuple[str, str, int, datetime, int]]:
    import pyarrow.parquet as pq

    newest: dict[tuple[str, str, int], tuple[datetime, int]] = {}
    for kind in tables():
        file = part / f"{kind}.parquet"
        if not file.is_file():
            continue
        columns = ["_run_id", "_group_id", "_rank", "_timestamp", "_seq"]
        found = pq.read_table(file, columns=columns)
        grouped = found.group_by(columns[:3]).aggregate([("_timestamp", "max"), ("_seq", "max")])
        for row in grouped.to_pylist():
            key = (row["_run_id"], row["_group_id"], row["_rank"])
            moment = row["_timestamp_max"]
            if moment is not None:
                newest_here = (moment.replace(tzinfo=UTC), row["_seq_max"])
                newest[key] = max(newest.get(key, newest_here), newest_here)
    for (run, group, rank), (moment, seq) in newest.items():
        yield run, group, rank, moment, seq
