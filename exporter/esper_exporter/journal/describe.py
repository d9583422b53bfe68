"""The views, and the meaning of their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_exporter.journal.database import quoted, run
from esper_exporter.journal.query import QueryRefused, as_table, run_query

if TYPE_CHECKING:
    import duckdb

_OWN = "NOT internal AND NOT starts_with(view_name, 'event_')"


def listed(connection: duckdb.DuckDBPyConnection) -> str:
    """Every view: name, number of rows, what it shows."""
    names = run(connection, f"SELECT view_name FROM duckdb_views() WHERE {_OWN} ORDER BY 1")
    counts = " UNION ALL ".join(
        f'SELECT {quoted(name)} AS view, count(*) AS rows FROM "{name}"' for (name,) in names
    )
    return as_table(
        run_query(
            connection,
            f"SELECT c.view, c.rows, v.comment AS shows FROM ({counts}) AS c"
            f" JOIN duckdb_views() AS v ON v.view_name = c.view WHERE {_OWN} ORDER BY 1",
        )
    )


def described(connection: duckdb.DuckDBPyConnection, view: str) -> str:
    """A view's columns: name, type, unit or meaning. Raises QueryRefused for an unknown one."""
    known = run(
        connection, f"SELECT 1 FROM duckdb_views() WHERE {_OWN} AND view_name = {quoted(view)}"
    )
    if not known:
        raise QueryRefused(f"no view {view!r}; --list names them")
    return as_table(
        run_query(
            connection,
            "SELECT column_name AS column, data_type AS type, coalesce(comment, '') AS meaning"
            f" FROM duckdb_columns() WHERE table_name = {quoted(view)} ORDER BY column_index",
        )
    )
