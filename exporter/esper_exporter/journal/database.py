"""A database of views over the parts of a journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_exporter.journal.columns import Table, tables
from esper_exporter.journal.latch_facts import latch_rows
from esper_exporter.journal.parts import ROW_COLUMNS
from esper_exporter.journal.view_parts import RUN_DIR, relation
from esper_exporter.journal.views import facts, views

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def build(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[Path], *, comments: bool = True
) -> int:
    """Make every view over these parts; returns the number of events.

    ``comments`` puts descriptions and units on views and columns, a third of the work. Of the parts
    only the footers and the few rows that latches come from are read.
    """
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    present = []
    dual = []
    events = 0
    run(connection, RUN_DIR)
    for kind, table in tables().items():
        files = [part / f"{kind}.parquet" for part in parts]
        held = [str(file) for file in files if file.is_file()]
        schema = arrow_schema(connection, table)
        name = relation(kind)
        if not held:
            connection.register(name, schema.empty_table())
            continue
        connection.register(name, ds.dataset(held, schema=schema, format="parquet"))
        present.append(kind)
        footers = [pq.read_metadata(file) for file in held]
        events += sum(footer.num_rows for footer in footers)
        if len(table.names) > 1 and _names_in(footers) != 1:
            dual.append(kind)
    # Hundreds of small statements: as one transaction they take a third of the time.
    run(connection, "BEGIN TRANSACTION")
    run(connection, f"CREATE VIEW run_facts AS {facts(tuple(present) or ('TRAINING_STARTED',))}")
    for name, found in latch_rows(connection).items():
        connection.register("chunk", found)
        run(connection, f"CREATE TABLE {name} AS SELECT * FROM chunk")
        connection.unregister("chunk")
    for view in views(tuple(present), frozenset(dual)):
        run(connection, f'CREATE VIEW "{view.name}" AS {view.query}')
        for alias in view.aliases:
            run(connection, f'CREATE VIEW "{alias}" AS SELECT * FROM "{view.name}"')
        if comments:
            _comment(connection, view.name, view.about, view.comments, view.aliases)
    run(connection, "COMMIT")
    return events


def _names_in(footers: Sequence[Any]) -> int:
    """How many names a type's events have, by the statistics in Parquet footers.

    2 also without statistics.
    """
    names: set[str | None] = set()
    for footer in footers:
        place = footer.schema.names.index("_event_type")
        for group in range(footer.num_row_groups):
            found = footer.row_group(group).column(place).statistics
            known = found is not None and found.has_min_max
            names |= {found.min, found.max} if known else {None, ""}
    return min(len(names), 2)


def _comment(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    about: str,
    comments: dict[str, str],
    aliases: tuple[str, ...],
) -> None:
    described = run(connection, f'DESCRIBE "{name}"')
    for each in (name, *aliases):
        run(connection, f'COMMENT ON VIEW "{each}" IS {quoted(about)}')
        for column, *_ in described:
            if text := comments.get(column):
                run(connection, f'COMMENT ON COLUMN "{each}"."{column}" IS {quoted(text)}')


def run(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """Run one statement to its end, and return its rows."""
    rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return rows


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


_SCHEMAS: dict[str, Any] = {}


def arrow_schema(connection: duckdb.DuckDBPyConnection, table: Table) -> pa.Schema:
    """The Arrow schema of a type's rows, as `PartWriter` writes them."""
    known = _SCHEMAS.get(table.type)
    if known is None:
        cells = [f'NULL::{sql} AS "{name}"' for name, sql in ROW_COLUMNS.items()]
        cells += [
            f'NULL::{"VARCHAR" if column.shape == "JSON" else column.sql} AS "{column.name}"'
            for column in table.columns
        ]
        query = f"SELECT {', '.join(cells)} WHERE false"
        known = _SCHEMAS[table.type] = connection.sql(query).to_arrow_table().schema
    return known
