"""The arguments of ``esper-exporter compare``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from esper_exporter.commands.console import OK, CommandError, write_out
from esper_exporter.commands.explain_command import FORMATS, chosen, read

if TYPE_CHECKING:
    from esper_exporter.journal.record import RunRecord


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    compare = commands.add_parser(
        "compare",
        help="compare two runs: configuration, results, where they diverge",
        description="Compare two runs. Each is a source, or a source and a run in it as"
        " SOURCE#RUN_ID or SOURCE#RUN_ID/GROUP.",
    )
    compare.add_argument("first", metavar="RUN", help="telemetry, a folder or a journal")
    compare.add_argument("second", metavar="RUN", help="the run to compare it with")
    compare.add_argument("--format", choices=FORMATS, default="markdown", help="of the report")
    compare.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.journal import compare
    from esper_exporter.journal.report import as_json

    one, other = (_one(name) for name in (options.first, options.second))
    comparison = compare.compare(one, other)
    if options.format == "json":
        text = as_json(comparison) + "\n"
    elif options.format == "html":
        text = compare.html(comparison)
    else:
        text = compare.markdown(comparison)
    write_out(text.encode())
    return OK


def _one(name: str) -> RunRecord:
    source, _, wanted = name.partition("#")
    run_id, _, group = wanted.partition("/")
    found = chosen(read([source]), run_id or None, group or None, None)
    if len(found) > 1 and not wanted:
        known = ", ".join(f"{run.run_id}/{run.group_id}" for run in found)
        raise CommandError(f"{source} holds several runs; add #RUN_ID/GROUP: {known}")
    return found[-1]
