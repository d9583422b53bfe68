"""The arguments of ``esper-exporter mcp``."""

from __future__ import annotations

import argparse
import resource

from esper_exporter.commands.console import OK, CommandError

MEMORY_BYTES = 6 << 30
"""Address space of the server. DuckDB's own limit leaves out what a text function allocates: one
`repeat('x', 3000000000)` took 6 GB. Beyond this the query fails and the server continues."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    mcp = commands.add_parser(
        "mcp",
        help="serve runs to an assistant (Model Context Protocol)",
        description="An MCP server on standard input and output with the tools runs, explain, query"
        " (read-only SQL) and compare over some sources. It writes nothing.",
    )
    mcp.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="telemetry, folders of runs, journals, globs"
    )
    mcp.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.journal.sources import SourceError, find

    try:
        find(options.sources)
    except SourceError as problem:
        raise CommandError(str(problem)) from None
    try:
        from esper_exporter.journal.mcp_server import make_server

        server = make_server(options.sources)
    except ImportError:
        raise CommandError("the MCP server needs its SDK: pip install mcp duckdb pyarrow") from None
    _bound_memory()
    server.run("stdio")
    return OK


def _bound_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [each for each in (soft, hard, MEMORY_BYTES) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
