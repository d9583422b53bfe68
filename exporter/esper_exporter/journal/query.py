"""One read-only query: what is allowed, and its result as a table, CSV, JSON, Parquet or Arrow."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet", "arrow")
BINARY = ("parquet", "arrow")
_READING = frozenset({"SELECT", "EXPLAIN", "RELATION", "SHOW", "DESCRIBE"})
_WIDEST_CELL = 60
_MEASURES = re.compile(r"(?i)analy[sz]e")
"""EXPLAIN ANALYZE runs the statement, which may be anything."""


class QueryRefused(ValueError):
    """No query, or one that does more than read. The text is for the user."""


def run_query(
    connection: duckdb.DuckDBPyConnection,
    text: str,
    *,
    seconds: float | None = None,
    most: int | None = None,
) -> pa.Table:
    """The result of one reading statement.

    ``seconds`` ends it when it takes longer; of its rows only the first ``most`` are computed.
    Raises QueryRefused for anything but one statement that only reads, and for what DuckDB refuses,
    with DuckDB's words.
    """
    import duckdb

    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as problem:
        raise QueryRefused(str(problem)) from None
    if len(statements) != 1:
        raise QueryRefused(f"one statement is wanted, not {len(statements)}")
    kind = statements[0].type.name
    if kind not in _READING or (kind == "EXPLAIN" and _MEASURES.search(text)):
        raise QueryRefused(f"a {kind} statement does more than read; only queries are run here")
    with _time_limit(connection, seconds) as expired:
        try:
            if kind == "EXPLAIN":
                return _explained(connection.execute(text).fetchall())
            answer = connection.sql(text)
            found: pa.Table = (answer if most is None else answer.limit(most)).to_arrow_table()
        except duckdb.Error as problem:
            if expired.is_set():
                raise QueryRefused(f"the query took longer than {seconds:g} s") from None
            raise QueryRefused(str(problem)) from None
    return found


def _explained(plan: list[tuple[str, ...]]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"plan": [row[-1] for row in plan]})


@contextmanager
def _time_limit(
    connection: duckdb.DuckDBPyConnection, seconds: float | None
) -> Iterator[threading.Event]:
    expired = threading.Event()

    def interrupt() -> None:
        expired.set()
        connection.interrupt()

    timer = threading.Timer(seconds, interrupt) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield expired
    finally:
        if timer is not None:
            timer.cancel()


def write(found: pa.Table, form: str, out: IO[bytes]) -> None:
    """Write a result; ``form`` is one of `FORMATS`."""
    if form == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(found, out, compression="zstd")
    elif form == "arrow":
        import pyarrow as pa

        with pa.ipc.new_stream(out, found.schema) as stream:
            stream.write_table(found)
    elif form == "json":
        for row in rows(found):
            out.write(json.dumps(row, default=_plain).encode() + b"\n")
    elif form == "csv":
        _write_csv(found, out)
    else:
        out.write(as_table(found).encode())


def rows(found: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as dicts, a batch at a time."""
    for batch in found.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _write_csv(found: pa.Table, out: IO[bytes]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found.column_names)
    for row in rows(found):
        writer.writerow([_cell(value) for value in row.values()])
    out.write(text.getvalue().encode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int | str):
        return str(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return json.dumps(value, default=_plain)


def as_table(found: pa.Table, most: int | None = None) -> str:
    """A result as text in columns; ``most`` rows, and how many more there are."""
    names = found.column_names
    shown = found if most is None else found.slice(0, most)
    cells = [[_shown(value) for value in row.values()] for row in rows(shown)]
    numbers = {
        place
        for place, kind in enumerate(found.schema.types)
        if str(kind).startswith(("int", "uint", "double", "float", "decimal"))
    }
    widths = [
        max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(names)
    ]

    def line(row: list[str]) -> str:
        padded = [
            text.rjust(width) if place in numbers else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    lines = [line(list(names)), "  ".join("-" * width for width in widths)]
    lines += [line(row) for row in cells]
    if len(found) > len(cells):
        lines.append(f"… {len(found) - len(cells):,} more rows")
    count = f"({len(found):,} row{'' if len(found) == 1 else 's'})"
    return "\n".join([*lines, count]) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else _cell(value)
    # A name in telemetry must not steer the terminal.
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 1] + "…"


def standard_output() -> IO[bytes]:
    """Where results go unless a file is named."""
    return sys.stdout.buffer
