"""A part of a journal: a directory with one Parquet file an event type, and what it holds.

Lines of telemetry become typed rows in DuckDB's own JSON reader, a chunk at a time, so that memory
does not grow with the recording. A line that is no event of the contract is counted by reason and
left out, as the exporter does it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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

CHUNK_LINES = 40_000

ROW_GROUP = 60_000

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


@dataclass(slots=True)
class _Starts:
    """The runs that began so far, in order: which event belongs to which."""

    seqs: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def add(
        self, seq: int, group: str, told: str | None, begun: datetime | None, rank: int
    ) -> None:
        """A run begins. Its name is the event's and its time, as on the exporter's page."""
        stamp = f"-{begun:%Y%m%dT%H%M%SZ}" if begun is not None else ""
        stem = name = f"{told or 'run'}{stamp}"
        number = 1
        while (name, group) in zip(self.names, self.groups, strict=True):
            number += 1
            name = f"{stem}-{number}"
        self.seqs.append(seq)
        self.groups.append(group)
        self.names.append(name)
        self.ranks.append(rank)

    def of(self, seq: int, group: str, phantom: bool) -> tuple[str, str, int]:
        """(run, group, rank) of an event."""
        fallback: int | None = None
        for place in range(len(self.seqs) - 1, -1, -1):
            if self.seqs[place] > seq:
                continue
            if self.groups[place] == group:
                return self.names[place], group, self.ranks[place]
            if fallback is None:
                fallback = place
        if phantom and group == "default" and fallback is not None:
            return self.names[fallback], self.groups[fallback], self.ranks[fallback]
        return "run", group, 0


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
        self._starts = _Starts()
        self._writers: dict[str, Any] = {}
        self._held: dict[str, list[pa.Table]] = {}
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
        found = self._con.sql(select(table, "chunk")).to_arrow_table().combine_chunks()
        self._con.unregister("chunk")
        by_seq = {line.seq: line for line in lines}
        broken = found["_broken"]
        right = pc.is_in(found["_event_type"], value_set=pa.array(table.names))
        self.rejected[MALFORMED_JSON] += pc.sum(broken).as_py() or 0
        astray = found.filter(pc.and_(pc.invert(broken), pc.invert(right)))
        found = found.filter(pc.and_(pc.invert(broken), right))
        found = self._accepted(table, found)
        if len(found):
            self._hold(table, found, by_seq)
        return [by_seq[seq] for seq in astray["_seq"].to_pylist()] if not again else []

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
        if table.required and not table.may_be_empty:
            for name in table.required:
                keep &= ~pc.is_null(found[name]).to_numpy(zero_copy_only=False)
            keep |= self._tells_of_a_fault(table, found)
            self.rejected[MISSING_FIELD] += int((~keep).sum())
        for place, told in enumerate(found["_event_id"].to_pylist()):
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

    def _hold(self, table: Table, found: pa.Table, by_seq: dict[int, Line]) -> None:
        import pyarrow as pa

        seqs = found["_seq"].to_pylist()
        groups = found["_group_id"].to_pylist()
        if table.type == _STARTED:
            for place, seq in enumerate(seqs):
                if by_seq[seq].run is None:
                    self._starts.add(
                        seq,
                        groups[place],
                        found["episode_id"][place].as_py(),
                        found["_timestamp"][place].as_py(),
                        found["rank"][place].as_py() or 0,
                    )
        phantom = table.type in TYPES and TYPES[table.type].group_unreliable
        runs, ranks = [], []
        only = len(self._starts.seqs) == 1 and all(line.run is None for line in by_seq.values())
        for place, seq in enumerate(seqs):
            told = by_seq[seq].run
            if told is not None:
                name, rank = told
            elif only and seq >= self._starts.seqs[0] and groups[place] == self._starts.groups[0]:
                name, rank = self._starts.names[0], self._starts.ranks[0]
            else:
                name, groups[place], rank = self._starts.of(seq, groups[place], phantom)
            runs.append(name)
            ranks.append(rank)
        times = found["_timestamp"]
        for moment in (pc_min(times), pc_max(times)):
            if moment is not None:
                self.first = moment if self.first is None else min(self.first, moment)
                self.last = moment if self.last is None else max(self.last, moment)
        added = {
            "_run_id": pa.array(runs, pa.string()),
            "_rank": pa.array(ranks, pa.int64()),
            "_group_id": pa.array(groups, pa.string()),
            "_source": pa.array([self._source] * len(found), pa.string()),
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

    def _write(self, kind: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(self._held.pop(kind)).sort_by("_seq")
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
