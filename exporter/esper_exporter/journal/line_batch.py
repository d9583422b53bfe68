"""Lines of telemetry of one event type, and how DuckDB's JSON reader makes typed columns of them.

Planning a query over a type's columns takes DuckDB 10 ms, whatever the number of lines: lines wait
until there are many of their type.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_exporter.journal.columns import ENVELOPE, Table

if TYPE_CHECKING:
    import pyarrow as pa

_THREAD_LINES = 2_048
"""Lines that one thread of DuckDB reads at once."""


@dataclass(slots=True)
class Line:
    """One event as recorded: its place in the source, its text, and its run where known."""

    seq: int
    text: bytes
    run: tuple[str, int] | None = None


@dataclass(slots=True)
class LineBatch:
    """Lines in their order: their numbers and texts, the runs of those whose run is known."""

    seqs: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    runs: dict[int, tuple[str, int]] = field(default_factory=dict)
    size: int = 0
    _done: list[pa.Table] = field(default_factory=list)
    unreadable: int = 0
    """Lines left out because they are not UTF-8."""

    def add(self, seq: int, text: bytes, run: tuple[str, int] | None) -> None:
        """Append a line."""
        self.seqs.append(seq)
        self.texts.append(text)
        self.size += len(text)
        if run is not None:
            self.runs[seq] = run

    def extend(self, seqs: Any, texts: pa.Array, size: int) -> None:
        """Append lines whose runs are not known: their numbers and texts, as string views."""
        self._close_list()
        self._hold(seqs, texts)
        self.size += size

    def _close_list(self) -> None:
        import pyarrow as pa

        if self.seqs:
            kept = [place for place, text in enumerate(self.texts) if is_utf8(text)]
            self.unreadable += len(self.seqs) - len(kept)
            texts = pa.array([self.texts[place] for place in kept], pa.string_view())
            self._hold(np.array(self.seqs, np.int64)[kept], texts)
            self.seqs, self.texts = [], []

    def _hold(self, seqs: Any, texts: pa.Array) -> None:
        import pyarrow as pa

        self._done.append(pa.table({"seq": pa.array(seqs, pa.int64()), "line": texts}))

    def subset(self, seqs: set[int]) -> list[Line]:
        """The lines with these numbers."""
        return [
            Line(row["seq"], row["line"].encode(), self.runs.get(row["seq"]))
            for table in self.as_arrow().to_batches()
            for row in table.to_pylist()
            if row["seq"] in seqs
        ]

    def as_arrow(self) -> pa.Table:
        """Columns ``seq`` and ``line``, in pieces that threads share."""
        import pyarrow as pa

        self._close_list()
        whole = pa.concat_tables(self._done).combine_chunks()  # the texts stay where they are
        self._done = [whole]
        return pa.Table.from_batches(whole.to_batches(_THREAD_LINES), whole.schema)


def is_utf8(text: bytes | memoryview) -> bool:
    """Whether bytes are UTF-8."""
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


_MOMENT = """coalesce(try_cast(e.timestamp AS TIMESTAMPTZ)::TIMESTAMP,
                  TRY(to_timestamp(try_cast(e.timestamp AS DOUBLE))::TIMESTAMP))"""
"""DuckDB's times have a wider range than Python's, which read them again."""


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
               CASE WHEN {_MOMENT} BETWEEN '0001-01-02' AND '9999-12-30'
                    THEN {_MOMENT} END AS _timestamp,
               coalesce(e.group_id, 'default') AS _group_id,
               coalesce(e.message, '') AS _message, coalesce(e.severity, 'info') AS _severity,
               e IS NULL AS _broken, {columns}
        FROM (SELECT seq, TRY(json_transform(line, '{shape}')) AS e FROM {source})"""
