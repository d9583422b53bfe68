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


def build(connection: duckdb.DuckDBPyConnection, parts: Sequence[Path]) -> int:
    """Make every view over these parts, and return how many events there are."""
    import pyarrow.dataset as ds

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
        dataset = ds.dataset(held, schema=schema, format="parquet")
        connection.register(name, dataset)
        present.append(kind)
        events += dataset.count_rows()
        names = f"SELECT count(DISTINCT _event_type) FROM {name}"
        if len(table.names) > 1 and run(connection, names)[0][0] > 1:
            dual.append(kind)
    if present:
        run(connection, f"CREATE TABLE run_facts AS {facts(tuple(present))}")
    else:
        run(connection, f"CREATE TABLE run_facts AS {facts(('TRAINING_STARTED',))}")
    for name, found in latch_rows(connection).items():
        connection.register("chunk", found)
        run(connection, f"CREATE TABLE {name} AS SELECT * FROM chunk")
        connection.unregister("chunk")
    for view in views(tuple(present), frozenset(dual)):
        run(connection, f'CREATE VIEW "{view.name}" AS {view.query}')
        for alias in view.aliases:
            run(connection, f'CREATE VIEW "{alias}" AS SELECT * FROM "{view.name}"')
        _comment(connection, view.name, view.about, view.comments, view.aliases)
    return events


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
