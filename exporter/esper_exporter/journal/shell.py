"""The interactive shell of ``esper-exporter sql``."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from esper_exporter.journal.describe import described, listed
from esper_exporter.journal.query import QueryRefused, as_table, run_query

if TYPE_CHECKING:
    import duckdb

HELP = """A query ends with a semicolon. Other words:
  .list            the views
  .describe VIEW   its columns, types and units
  .quit            leave (or Ctrl-D)
"""
MOST_ROWS = 200


def shell(connection: duckdb.DuckDBPyConnection) -> None:
    """Read queries from the terminal until its end, and print their results."""
    with suppress(ImportError):
        import readline  # noqa: F401
    print(".help says what there is; Ctrl-D ends", file=sys.stderr)
    held: list[str] = []
    while True:
        try:
            line = input("esper> " if not held else "  ...> ")
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            held.clear()
            print(file=sys.stderr)
            continue
        word, _, rest = line.strip().partition(" ")
        if not held and word.startswith("."):
            if word in (".quit", ".exit"):
                return
            _print(connection, word, rest.strip())
            continue
        if line.strip():
            held.append(line)
        if held and line.rstrip().endswith(";"):
            _answer(connection, "\n".join(held))
            held.clear()


def _print(connection: duckdb.DuckDBPyConnection, word: str, rest: str) -> None:
    try:
        if word == ".list":
            print(listed(connection), end="")
        elif word == ".describe":
            print(described(connection, rest), end="")
        else:
            print(HELP, end="")
    except QueryRefused as problem:
        print(problem, file=sys.stderr)


def _answer(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    try:
        print(as_table(run_query(connection, query), MOST_ROWS), end="")
    except QueryRefused as problem:
        print(problem, file=sys.stderr)
    except KeyboardInterrupt:
        connection.interrupt()
        print("interrupted", file=sys.stderr)
