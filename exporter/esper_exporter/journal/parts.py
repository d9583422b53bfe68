"""A part of a journal: a directory with one Parquet file an event type, and what it holds.

Lines of telemetry become typed rows in DuckDB's own JSON reader, a chunk at a time, so that memory
does not grow with the recording. A line that is no event of the contract is counted by reason and
left out, as the exporter does it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.jsonlines import MAX_LINE
from esper_exporter.contract.rejection import (
    MALFORMED,
    MALFORMED_JSON,
    MISSING_FIELD,
    UNKNOWN_TYPE,
)
from esper_exporter.journal.columns import ENVELOPE, Table, table_of_name, tables

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
from esper_exporter.journal.part_files import MANIFEST, VERSION, checksum, stamp_of
from esper_exporter.journal.run_starts import RunStarts

CHUNK_LINES = 20_000

ROW_GROUP = 20_000

BATCH = 2_048
"""Lines that one thread of DuckDB takes at once."""

_TYPE = re.compile(rb'"event_type"\s*:\s*"([A-Za-z_]{1,64})"')

_STARTED = "TRAINING_STARTED"


@dataclass(slots=True)
class Line:
    """One event as it stood: where in its source, its text, and the run where that is known."""

    seq: int
    text: bytes
    run: tuple[str, int] | None = None


def select(table: Table, source: str) -> str:
    """The query that turns the ``line`` column of ``source`` into the table's typed rows."""
    envelope: dict[str, Any] = dict(ENVELOPE)
    envelope["data"] = json.loads(table.shape)
    shape = json.dumps(envelope)
    columns = ", ".join(
        f'e.data."{column.name}"'
        + ("::VARCHAR" if column.shape == "JSON" else "")
        + f' AS "{column.name}"'
        for column in table.columns
    )
    plain = ("event_id", "event_type", "seed_id", "slot_id", "epoch")
    return f"""
        SELECT seq AS _seq, {", ".join(f"e.{name} AS _{name}" for name in plain)},
               coalesce(try_cast(e.timestamp AS TIMESTAMPTZ)::TIMESTAMP,
                        to_timestamp(try_cast(e.timestamp AS DOUBLE))::TIMESTAMP) AS _timestamp,
               coalesce(e.group_id, 'default') AS _group_id,
               coalesce(e.message, '') AS _message, coalesce(e.severity, 'info') AS _severity,
               e IS NULL AS _broken, {columns}
        FROM (SELECT seq, TRY(json_transform(line, '{shape}')) AS e FROM {source})"""


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

    ``source`` is the name under which the rows' origin is kept. Raises OSError where the disk does.
    """

    def __init__(self, directory: Path, source: str) -> None:
        import duckdb

        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._source = source
        self._con: duckdb.DuckDBPyConnection = duckdb.connect(
            config={"memory_limit": "1GB", "threads": 2}
        )
        self._con.execute("SET TimeZone = 'UTC'").fetchall()
        self._starts = RunStarts()
        self._writers: dict[str, Any] = {}
        self._held: dict[str, list[pa.Table]] = {}
        # Compresses while the next chunk is read; no more than two row groups wait for it.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="esper-exporter-parquet")
        self._pending: deque[Future[None]] = deque()
        self._ids: set[str] = set()
        self._ids_before: set[str] = set()
        self.rows: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.repeated = 0
        self.lines = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def feed(self, lines: Sequence[Line]) -> None:
        """Bring a chunk of lines into the part."""
        self.lines += len(lines)
        buckets: dict[str, list[Line]] = {}
        known = table_of_name()
        for line in lines:
            if len(line.text) > MAX_LINE:
                self.rejected[MALFORMED_JSON] += 1
                continue
            found = _TYPE.search(line.text)
            table = known.get(found[1].decode()) if found else None
            buckets.setdefault(table.type if table else "", []).append(line)
        astray = buckets.pop("", [])
        for kind in sorted(buckets, key=lambda each: each != _STARTED):
            astray += self._convert(tables()[kind], buckets[kind])
        self._sort_out(astray)
        self._ids_before, self._ids = self._ids, set()

    def _convert(self, table: Table, lines: list[Line], again: bool = False) -> list[Line]:
        """Rows of one type; the lines that turn out to be of another are returned."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pa.array([line.text for line in lines], pa.binary())
        try:
            texts = texts.cast(pa.string())
        except pa.ArrowInvalid:
            texts, lines = self._decodable(lines)
        seqs = pa.array([line.seq for line in lines], pa.int64())
        whole = pa.table({"seq": seqs, "line": texts})
        self._con.register("chunk", pa.Table.from_batches(whole.to_batches(BATCH), whole.schema))
        found = self._con.sql(select(table, "chunk")).to_arrow_table()
        self._con.unregister("chunk")
        right = pc.is_in(found["_event_type"], value_set=pa.array(table.names))
        elsewhere: list[int] = []
        if not pc.all(right).as_py():  # a broken line has no type
            broken = found["_broken"]
            self.rejected[MALFORMED_JSON] += pc.sum(broken).as_py() or 0
            astray = pc.and_(pc.invert(broken), pc.invert(right))
            elsewhere = found["_seq"].filter(astray).to_pylist()
            found = found.filter(right)
        found = self._accepted(table, found)
        if len(found):
            self._hold(table, found, lines)
        if not elsewhere or again:
            return []
        by_seq = {line.seq: line for line in lines}
        return [by_seq[seq] for seq in elsewhere]

    def _decodable(self, lines: list[Line]) -> tuple[pa.Array, list[Line]]:
        import pyarrow as pa

        kept = []
        for line in lines:
            try:
                line.text.decode()
                kept.append(line)
            except UnicodeDecodeError:
                self.rejected[MALFORMED_JSON] += 1
        return pa.array([line.text.decode() for line in kept], pa.string()), kept

    def _accepted(self, table: Table, found: pa.Table) -> pa.Table:
        """Without what the exporter would refuse, and what was delivered before."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        keep = np.ones(len(found), dtype=bool)
        if not table.may_be_empty and any(found[name].null_count for name in table.required):
            for name in table.required:
                keep &= ~pc.is_null(found[name]).to_numpy(zero_copy_only=False)
            keep |= self._tells_of_a_fault(table, found)
            self.rejected[MISSING_FIELD] += int((~keep).sum())
        ids = found["_event_id"].to_pylist()
        news = set(ids)
        known = self._ids.isdisjoint(news) and self._ids_before.isdisjoint(news)
        if known and keep.all() and len(news) == len(ids) and None not in news:
            self._ids |= news
            return found
        for place, told in enumerate(ids):
            if told is None or not keep[place]:
                continue
            if told in self._ids or told in self._ids_before:
                keep[place] = False
                self.repeated += 1
            else:
                self._ids.add(told)
        return found if keep.all() else found.filter(pa.array(keep))

    def _tells_of_a_fault(self, table: Table, found: pa.Table) -> Any:
        """What names a NaN or an Inf is kept, complete or not."""
        import numpy as np

        if table.type == "NUMERICAL_INSTABILITY_DETECTED":
            return np.array(
                [
                    bool(detail) and (kind or "").startswith("ppo_finiteness_")
                    for kind, detail in zip(
                        found["anomaly_type"].to_pylist(), found["detail"].to_pylist(), strict=True
                    )
                ]
            )
        if table.type == "TAMIYO_POLICY_UPDATE":
            columns = [found[f"head_{kind}_detected"].to_pylist() for kind in ("nan", "inf")]
            return np.array(
                [
                    any(up for _, up in (*(a or ()), *(b or ())))
                    for a, b in zip(*columns, strict=True)
                ]
            )
        return np.zeros(len(found), dtype=bool)

    def _hold(self, table: Table, found: pa.Table, lines: list[Line]) -> None:
        import pyarrow as pa

        if table.type == _STARTED:
            self._begin_runs(found, lines)
        runs, groups, ranks = self._runs_of(table, found, lines)
        times = found["_timestamp"]
        for moment in (pc_min(times), pc_max(times)):
            if moment is not None:
                self.first = moment if self.first is None else min(self.first, moment)
                self.last = moment if self.last is None else max(self.last, moment)
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

    def _begin_runs(self, found: pa.Table, lines: list[Line]) -> None:
        """The runs whose names no journal gave begin here."""
        named = {line.seq for line in lines if line.run is not None}
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

    def _runs_of(self, table: Table, found: pa.Table, lines: list[Line]) -> tuple[Any, Any, Any]:
        """Run, group and rank of each row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        starts = self._starts
        told = lines[0].run is not None
        if not told and len(starts.seqs) == 1 and lines[0].seq >= starts.seqs[0]:
            same = pc.all(pc.equal(found["_group_id"], starts.groups[0])).as_py()
            if same:
                count = len(found)
                return (
                    pa.repeat(pa.scalar(starts.names[0], pa.string()), count),
                    found["_group_id"],
                    pa.repeat(pa.scalar(starts.ranks[0], pa.int64()), count),
                )
        groups = found["_group_id"].to_pylist()
        phantom = table.type in TYPES and TYPES[table.type].group_unreliable
        named = {line.seq: line.run for line in lines if line.run is not None}
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
        self._pending.append(self._pool.submit(self._compress, kind, self._held.pop(kind)))
        while len(self._pending) > 2:
            self._pending.popleft().result()

    def _compress(self, kind: str, held: list[pa.Table]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(held).sort_by("_seq")
        writer = self._writers.get(kind)
        if writer is None:
            writer = self._writers[kind] = pq.ParquetWriter(
                self._directory / f"{kind}.parquet",
                rows.schema,
                compression="zstd",
                compression_level=3,
            )
        writer.write_table(rows)

    def _sort_out(self, lines: Iterable[Line]) -> None:
        """Lines whose type is not where it usually stands, or that are no events at all."""
        again: dict[str, list[Line]] = {}
        for line in lines:
            try:
                told = json.loads(line.text)
            except (ValueError, RecursionError):
                self.rejected[MALFORMED_JSON] += 1
                continue
            kind = told.get("event_type") if isinstance(told, dict) else None
            table = table_of_name().get(kind) if isinstance(kind, str) else None
            if table is None:
                self.rejected[UNKNOWN_TYPE if isinstance(kind, str) else MALFORMED] += 1
            else:
                again.setdefault(table.type, []).append(line)
        for kind, found in again.items():
            self._convert(tables()[kind], found, again=True)

    def close(self, **more: Any) -> dict[str, Any]:
        """Write the rest and the manifest, with ``more`` in it, and return it."""
        for kind in list(self._held):
            self._write(kind)
        while self._pending:
            self._pending.popleft().result()
        self._pool.shutdown()
        for writer in self._writers.values():
            writer.close()
        self._con.close()
        manifest = more | {
            "version": VERSION,
            "source": self._source,
            "lines": self.lines,
            "rows": dict(sorted(self.rows.items())),
            "rejected": {reason: count for reason, count in self.rejected.items() if count},
            "repeated": self.repeated,
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


def pc_min(column: Any) -> Any:
    """The earliest value of a column, None for an empty one."""
    import pyarrow.compute as pc

    return pc.min(column).as_py()


def pc_max(column: Any) -> Any:
    """The latest value of a column, None for an empty one."""
    import pyarrow.compute as pc

    return pc.max(column).as_py()
