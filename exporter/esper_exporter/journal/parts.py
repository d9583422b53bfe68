"""A part of a journal: a directory with one Parquet file an event type, and its contents.

Lines of telemetry become typed rows in DuckDB's own JSON reader, a chunk at a time, so that memory
does not grow with the recording. A line that is no event of the contract is counted by reason and
left out, as the exporter does it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.jsonlines import MAX_LINE
from esper_exporter.contract.rejection import MALFORMED, MALFORMED_JSON, MISSING_FIELD, UNKNOWN_TYPE
from esper_exporter.journal.acceptance import Acceptance
from esper_exporter.journal.columns import Table, table_of_name, tables
from esper_exporter.journal.line_batch import Line, LineBatch, is_utf8, select
from esper_exporter.journal.line_index import TYPE, LineIndex
from esper_exporter.journal.part_files import MANIFEST, VERSION, checksum, stamp_of
from esper_exporter.journal.run_starts import RunStarts
from esper_exporter.journal.stage import Stage

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROW_GROUP = 20_000

BATCH_BYTES = 16 << 20
"""Lines of one type are converted together once they reach this size, …"""

WAITING_BYTES = 64 << 20
"""… and those of all types at this one."""

_FEW_BYTES = 64 << 10
"""So few of a type in a block are copied, that the block need not be held for them."""

_STARTED = "TRAINING_STARTED"


Runs = Mapping[int, tuple[str, int]]
"""Number of a line → its run and rank, where known."""

ROW_COLUMNS: dict[str, str] = {
    "_seq": "BIGINT",
    "_run_id": "VARCHAR",
    "_group_id": "VARCHAR",
    "_rank": "BIGINT",
    "_timestamp": "TIMESTAMP",
    "_event_id": "VARCHAR",
    "_event_type": "VARCHAR",
    "_seed_id": "VARCHAR",
    "_slot_id": "VARCHAR",
    "_epoch": "BIGINT",
    "_message": "VARCHAR",
    "_severity": "VARCHAR",
    "_source": "VARCHAR",
}
"""The envelope's columns in a part; a payload's columns have no underscore before their names."""


class PartWriter:
    """Writes one part. ``feed`` takes lines in order; ``close`` writes what is left.

    ``source`` names the rows' origin. Raises OSError of the disk.
    """

    def __init__(self, directory: Path, source: str) -> None:
        import duckdb

        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._source = source
        self._con: duckdb.DuckDBPyConnection = duckdb.connect(
            config={"memory_limit": "1GB", "threads": _threads()}
        )
        self._con.execute("SET TimeZone = 'UTC'").fetchall()
        self._kinds = {name.encode(): table.type for name, table in table_of_name().items()}
        self._waiting: dict[str, LineBatch] = {}
        self._waiting_bytes = 0
        self._refused: Counter[str] = Counter()
        """What the thread that feeds rejects; ``rejected`` is the converting thread's."""
        # Each stage works while the one before reads on, and no more than two pieces wait for it.
        self._converter = Stage("esper-exporter-convert")
        self._compressor = Stage("esper-exporter-parquet")
        self._starts = RunStarts()
        self._writers: dict[str, Any] = {}
        self._held: dict[str, list[pa.Table]] = {}
        self._acceptance = Acceptance()
        self.rows: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.lines = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def feed(self, lines: Iterable[Line]) -> None:
        """Add lines whose runs are known."""
        for line in lines:
            self._add(line.seq, line.text, line.run)
            self._flush_what_is_large()

    def feed_block(self, first: int, block: bytes | memoryview) -> int:
        """Add consecutive lines of a file; the first one's number is ``first``.

        Returns their number.
        """
        index = LineIndex(block, self._kinds)
        sound = is_utf8(block)
        for kind, places in index.by_kind():
            self.lines += len(places)
            sizes = index.sizes[places]
            if sizes.max() > MAX_LINE:
                self._refused[MALFORMED_JSON] += int((sizes > MAX_LINE).sum())
                places, sizes = places[sizes <= MAX_LINE], sizes[sizes <= MAX_LINE]
            size = int(sizes.sum())
            if size < _FEW_BYTES or not sound:
                for place in places.tolist():
                    self._wait(kind, first + place, index.text(place))
                continue
            self._batch_of(kind).extend(places + first, index.arrow(places), size)
            self._waiting_bytes += size
        for place in index.others():
            self._add(first + place, index.text(place))
        self._flush_what_is_large()
        return len(index)

    def _batch_of(self, kind: str) -> LineBatch:
        batch = self._waiting.get(kind)
        if batch is None:
            batch = self._waiting[kind] = LineBatch()
        return batch

    def _add(self, seq: int, text: bytes, run: tuple[str, int] | None = None) -> None:
        found = TYPE.search(text)
        kind = self._kinds.get(found[1]) if found else None
        if kind is None:
            if not text or text.isspace():
                return
            kind = _kind_of(text, self._refused)
        self.lines += 1
        if kind is None:
            return
        if len(text) > MAX_LINE:
            self._refused[MALFORMED_JSON] += 1
            return
        self._wait(kind, seq, text, run)

    def _wait(self, kind: str, seq: int, text: bytes, run: tuple[str, int] | None = None) -> None:
        self._batch_of(kind).add(seq, text, run)
        self._waiting_bytes += len(text)

    def _flush_what_is_large(self) -> None:
        """Convert the types with much waiting; planning a query takes long for a few lines."""
        for kind in [k for k, batch in self._waiting.items() if batch.size >= BATCH_BYTES]:
            self._flush(kind)
        if self._waiting_bytes >= WAITING_BYTES:
            for kind in sorted(self._waiting, key=lambda k: -self._waiting[k].size):
                self._flush(kind)
                if self._waiting_bytes < WAITING_BYTES // 2:
                    break

    def _flush(self, kind: str) -> None:
        """Convert a type's waiting lines, after the runs that began."""
        for each in (_STARTED, kind):
            batch = self._waiting.pop(each, None)
            if batch is not None:
                self._waiting_bytes -= batch.size
                self._converter.submit(self._convert, tables()[each], batch)

    def _convert(self, table: Table, batch: LineBatch, again: bool = False) -> None:
        """Hold the rows of one type; move lines of another type to theirs."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chunk = batch.as_arrow()
        self.rejected[MALFORMED_JSON] += batch.unreadable
        self._con.register("chunk", chunk)
        found = self._con.sql(select(table, "chunk")).to_arrow_table()
        self._con.unregister("chunk")
        right = pc.is_in(found["_event_type"], value_set=pa.array(table.names))
        elsewhere: set[int] = set()
        if not pc.all(right).as_py():  # a broken line has no type
            broken = found["_broken"]
            self.rejected[MALFORMED_JSON] += pc.sum(broken).as_py() or 0
            astray = pc.and_(pc.invert(broken), pc.invert(right))
            elsewhere = set(found["_seq"].filter(astray).to_pylist())
            found = found.filter(right)
        found = self._acceptance.accepted(table, found)
        if len(found):
            self._hold(table, found, batch.runs)
        if elsewhere and not again:
            self._sort_out(batch.subset(elsewhere))

    def _hold(self, table: Table, found: pa.Table, named: Runs) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if table.type == _STARTED:
            self._begin_runs(found, named)
        runs, groups, ranks = self._runs_of(table, found, named)
        ends = pc.min_max(found["_timestamp"]).as_py()
        if ends["min"] is not None:
            self.first = min(self.first or ends["min"], ends["min"])
            self.last = max(self.last or ends["max"], ends["max"])
        added = {
            "_run_id": runs,
            "_rank": ranks,
            "_group_id": groups,
            "_source": pa.repeat(pa.scalar(self._source, pa.string()), len(found)),
        }
        rows = pa.table(
            {name: added[name] if name in added else found[name] for name in ROW_COLUMNS}
            | {column.name: found[column.name] for column in table.columns}
        )
        self.rows[table.type] += len(rows)
        held = self._held.setdefault(table.type, [])
        held.append(rows)
        if sum(map(len, held)) >= ROW_GROUP:
            self._write(table.type)

    def _begin_runs(self, found: pa.Table, named: Runs) -> None:
        """Begin the runs that no journal named."""
        columns = ("_seq", "_group_id", "episode_id", "_timestamp", "rank")
        for row in found.select(columns).to_pylist():
            if row["_seq"] not in named:
                self._starts.add(
                    row["_seq"],
                    row["_group_id"],
                    row["episode_id"],
                    row["_timestamp"],
                    row["rank"] or 0,
                )

    def _runs_of(self, table: Table, found: pa.Table, named: Runs) -> tuple[Any, Any, Any]:
        """Run, group and rank of each row."""
        import pyarrow as pa

        starts = self._starts
        if not named and (same := starts.of_all(found["_seq"], found["_group_id"])) is not None:
            return same
        groups = found["_group_id"].to_pylist()
        phantom = table.type in TYPES and TYPES[table.type].group_unreliable
        runs, ranks = [], []
        for place, seq in enumerate(found["_seq"].to_pylist()):
            known = named.get(seq)
            if known is not None:
                name, rank = known
            else:
                name, groups[place], rank = starts.of(seq, groups[place], phantom)
            runs.append(name)
            ranks.append(rank)
        return (
            pa.array(runs, pa.string()),
            pa.array(groups, pa.string()),
            pa.array(ranks, pa.int64()),
        )

    def _write(self, kind: str) -> None:
        self._compressor.submit(self._compress, kind, self._held.pop(kind))

    def _compress(self, kind: str, held: list[pa.Table]) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(held)
        if (np.diff(rows["_seq"].to_numpy()) < 0).any():
            rows = rows.sort_by("_seq")
        writer = self._writers.get(kind)
        if writer is None:
            writer = self._writers[kind] = pq.ParquetWriter(
                self._directory / f"{kind}.parquet",
                rows.schema,
                compression="zstd",
                compression_level=1,
                # Numbers repeat too seldom for a dictionary: it costs time and bytes.
                use_dictionary=[each.name for each in rows.schema if pa.types.is_string(each.type)],
            )
        writer.write_table(rows)

    def _sort_out(self, lines: Iterable[Line]) -> None:
        """Lines that name another type before their own."""
        again: dict[str, LineBatch] = {}
        for line in lines:
            found = _kind_of(line.text, self.rejected)
            if found is not None:
                again.setdefault(found, LineBatch()).add(line.seq, line.text, line.run)
        for kind, batch in again.items():
            self._convert(tables()[kind], batch, again=True)

    def close(self, **more: Any) -> dict[str, Any]:
        """Write the rest and the manifest, with ``more`` in it, and return it."""
        for kind in list(self._waiting):
            self._flush(kind)
        self._converter.close()
        self.rejected += self._refused
        self.rejected[MISSING_FIELD] += self._acceptance.incomplete
        for kind in list(self._held):
            self._write(kind)
        self._compressor.close()
        for writer in self._writers.values():
            writer.close()
        self._con.close()
        manifest = more | {
            "version": VERSION,
            "source": self._source,
            "lines": self.lines,
            "rows": dict(sorted(self.rows.items())),
            "rejected": {reason: count for reason, count in self.rejected.items() if count},
            "repeated": self._acceptance.repeated,
            "first": stamp_of(self.first),
            "last": stamp_of(self.last),
            "files": {
                f"{kind}.parquet": checksum(self._directory / f"{kind}.parquet")
                for kind in sorted(self._writers)
            },
        }
        text = json.dumps(manifest, indent=1)
        sealed = {"manifest": manifest, "crc32": zlib.crc32(text.encode())}
        beside = self._directory / f".{MANIFEST}.new"
        beside.write_text(json.dumps(sealed, indent=1), encoding="utf-8")
        beside.replace(self._directory / MANIFEST)  # a part is there once its manifest is
        return manifest


def _kind_of(text: bytes, rejected: Counter[str]) -> str | None:
    """The type of a line that hides it elsewhere; counts lines that are no events."""
    try:
        if len(text) > MAX_LINE:
            raise ValueError("too long")
        event = json.loads(text)
    except (ValueError, RecursionError):
        rejected[MALFORMED_JSON] += 1
        return None
    name = event.get("event_type") if isinstance(event, dict) else None
    table = table_of_name().get(name) if isinstance(name, str) else None
    if table is None:
        rejected[UNKNOWN_TYPE if isinstance(name, str) else MALFORMED] += 1
    return None if table is None else table.type


def _threads() -> int:
    """Threads for conversion; reading and compressing have one each beside them."""
    return max(1, min(6, len(os.sched_getaffinity(0)) - 1))
