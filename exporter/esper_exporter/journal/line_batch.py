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
"""Lines that one thread of DuckDB takes at once."""


@dataclass(slots=True)
class Line:
    """One event as it stood: where in its source, its text, and the run where that is known."""

    seq: int
    text: bytes
    run: tuple[str, int] | None = None


@dataclass(slots=True)
class LineBatch:
    """Lines in their order: numbers, texts, the runs of those whose run is known, and bytes."""

    seqs: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    runs: dict[int, tuple[str, int]] = field(default_factory=dict)
    size: int = 0

    def add(self, seq: int, text: bytes, run: tuple[str, int] | None) -> None:
        """Append a line."""
        self.seqs.append(seq)
        self.texts.append(text)
        self.size += len(text)
        if run is not None:
            self.runs[seq] = run

    def subset(self, seqs: set[int]) -> list[Line]:
        """The lines with these numbers."""
        pairs = zip(self.seqs, self.texts, strict=True)
        return [Line(seq, text, self.runs.get(seq)) for seq, text in pairs if seq in seqs]

    def as_arrow(self) -> tuple[pa.Table, int]:
        """Columns ``seq`` and ``line``, and how many lines were left out for not being UTF-8."""
        import pyarrow as pa

        seqs, texts = self.seqs, self.texts
        joined = b"".join(texts)
        if not joined.isascii() and not _is_utf8(joined, texts):
            kept = [place for place, text in enumerate(texts) if _is_utf8(text, ())]
            seqs, texts = [seqs[place] for place in kept], [texts[place] for place in kept]
            joined = b"".join(texts)
        offsets = np.zeros(len(texts) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, texts), np.int32, len(texts)), out=offsets[1:])
        lines = pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(joined))
        whole = pa.table({"seq": pa.array(seqs, pa.int64()), "line": lines})
        parted = pa.Table.from_batches(whole.to_batches(_THREAD_LINES), whole.schema)
        return parted, len(self.texts) - len(texts)


def _is_utf8(joined: bytes, texts: list[bytes] | tuple[()]) -> bool:
    """Whether bytes are UTF-8, and so is each text that they were joined from."""
    try:
        joined.decode()
    except UnicodeDecodeError:
        return False
    # Half a character at one text's end and half at the next one's start make a whole one.
    return not any(text[:1] and 0x80 <= text[0] < 0xC0 for text in texts)


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
