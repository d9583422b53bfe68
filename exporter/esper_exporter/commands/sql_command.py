"""The arguments of ``esper-exporter sql``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from esper_exporter.commands.console import OK, PROGRAM, CommandError
from esper_exporter.demo.bundled import RECORDINGS, files_of
from esper_exporter.journal.examples import EXAMPLES
from esper_exporter.journal.query import BINARY, FORMATS


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    sql = commands.add_parser(
        "sql",
        help="query recorded runs with SQL",
        description="Query the events of recorded runs with SQL: telemetry files, folders of runs,"
        " journals. Without a QUERY an interactive shell opens.",
        epilog="Exit codes: 0 done, 1 a source or the query failed, 2 wrong usage.",
    )
    sql.add_argument(
        "words",
        metavar="SOURCE… [QUERY]",
        nargs="*",
        help="telemetry (JSON lines, plain, gzip or zstd), folders, journals, globs, a built-in"
        f" recording ({', '.join(RECORDINGS)}); a last word with a blank in it is the query",
    )
    sql.add_argument("--query", metavar="SQL", help="the query, also one without a blank")
    sql.add_argument(
        "--format", choices=FORMATS, default="table", help="format of the result (default: table)"
    )
    sql.add_argument("--output", metavar="FILE", help="write the result to FILE")
    sql.add_argument("--list", action="store_true", help="list the views")
    sql.add_argument("--describe", metavar="VIEW", help="the columns of a view, with units")
    sql.add_argument(
        "--example",
        metavar="NAME",
        choices=sorted(EXAMPLES),
        help=f"run a ready query: {', '.join(EXAMPLES)}",
    )
    sql.add_argument("--memory-limit", metavar="SIZE", default="2GB", help="for DuckDB (2GB)")

    def run(options: argparse.Namespace) -> int:
        sources, query = _parted(sql, options)
        with files_of(sources) as files:
            return _run(options, files, query)

    sql.set_defaults(run=run)


def _parted(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[list[str], str | None]:
    """Split the words into sources and query."""
    sources: list[str] = list(options.words)
    query: str | None = options.query
    if query is None and sources and _is_query(sources[-1]):
        query = sources.pop()
    wanted = [options.list, options.describe, options.example, query]
    if sum(bool(each) for each in wanted) > 1:
        parser.error("give only one of QUERY, --list, --describe and --example")
    if options.example and not sources:
        return [], EXAMPLES[options.example].query
    if not sources:
        parser.error("nothing to query: name telemetry, a folder of runs or a journal")
    if options.format in BINARY and not options.output and sys.stdout.isatty():
        parser.error(f"--format {options.format} is not for a terminal: add --output FILE")
    return sources, EXAMPLES[options.example].query if options.example else query


def _is_query(word: str) -> bool:
    return bool(set(word) & set(" \n\t")) and not os.path.exists(word)


def _run(options: argparse.Namespace, sources: list[str], query: str | None) -> int:
    if not sources:
        print(query)
        return OK
    from esper_exporter.sql import MissingExtra, SourceError, load

    try:
        # One query reads no comments, unless it asks DuckDB's catalogue for them.
        comments = query is None or "duckdb_" in query.lower()
        loaded = load(sources, memory_limit=options.memory_limit, comments=comments)
    except (SourceError, MissingExtra) as problem:
        raise CommandError(str(problem)) from None
    for warning in loaded.warnings:
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    from esper_exporter.journal.describe import described, listed
    from esper_exporter.journal.query import QueryRefused, run_query, standard_output, write

    connection = loaded.connection
    try:
        if options.list:
            print(listed(connection), end="")
        elif options.describe:
            print(described(connection, options.describe), end="")
        elif query is None:
            from esper_exporter.journal.shell import shell

            shell(connection)
        else:
            found = run_query(connection, query)
            if options.output:
                with Path(options.output).open("wb") as out:
                    write(found, options.format, out)
            else:
                sys.stdout.flush()
                write(found, options.format, standard_output())
                standard_output().flush()
    except QueryRefused as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        if isinstance(problem, BrokenPipeError):
            sys.stderr.close()
            return OK
        raise CommandError(f"{options.output}: {problem.strerror}") from problem
    return OK
