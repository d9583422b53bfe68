"""The arguments of ``esper-exporter catalog``, and the printing of it."""

from __future__ import annotations

import argparse

from esper_exporter.commands.console import OK, write_out


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    catalog = commands.add_parser(
        "catalog",
        help="list every metric",
        description="List every metric there is: name, type and meaning. json and markdown also"
        " include unit, labels and source, and the reason for every field that is not exported.",
    )
    catalog.add_argument(
        "--format",
        choices=("table", "json", "markdown"),
        default="table",
        help="table for reading (default), json for programs, markdown as in docs/METRICS.md",
    )
    catalog.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.metrics.catalogue import as_json, as_markdown, as_table, catalogue

    render = {"table": as_table, "json": as_json, "markdown": as_markdown}[options.format]
    write_out(render(catalogue()).rstrip("\n").encode() + b"\n")
    return OK
