"""Events of a journal, as `explain` reads them: from its Parquet parts and its segments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Any

from esper_exporter.journal.columns import Table, tables
from esper_exporter.journal.parts import ROW_COLUMNS
from esper_exporter.journal.store import sealed_parts

Row = dict[str, Any]
OnRun = Callable[[str, str, int, datetime, int], None]
"""Called with run, group, rank, time and number of a run's newest event of any kind."""


def journal_rows(
    journal: Path, wanted: frozenset[str], warnings: list[str], on_run: OnRun
) -> Iterator[Row]:
    """The events of the wanted types, in the order in which they were accepted.

    Needs pyarrow. What cannot be read is left out and said in ``warnings``.
    """
    parts, damaged = sealed_parts(journal)
    warnings += damaged
    for part in parts:
        yield from part_rows(part, wanted)
        for newest in _newest(part):
            on_run(*newest)


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
    for batch in pq.ParquetFile(file).iter_batches(batch_size=2048):
        for row in batch.to_pylist():
            data = {
                name: json.loads(value) if name in texts else value
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
                told = (moment.replace(tzinfo=UTC), row["_seq_max"])
                newest[key] = max(newest.get(key, told), told)
    for (run, group, rank), (moment, seq) in newest.items():
        yield run, group, rank, moment, seq
