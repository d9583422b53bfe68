"""The arguments of ``esper-exporter explain``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from esper_exporter.commands.console import OK, PROGRAM, CommandError, write_out
from esper_exporter.demo.bundled import RECORDINGS, files_of

if TYPE_CHECKING:
    from esper_exporter.journal.record import RunRecord

FORMATS = ("markdown", "html", "json")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    explain = commands.add_parser(
        "explain",
        help="explain why a run died, and what happened first",
        description="Read a run from telemetry, a journal or a Prometheus server, and report"
        " what went wrong first, what came before, what followed and what to try.",
        epilog="Exit codes: 0 wrote a report, whatever its findings; 1 could not read a run;"
        " 2 wrong usage.",
    )
    explain.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        help="telemetry (JSON lines, plain, gzip or zstd), folders, journals, globs, or a built-in"
        f" recording: {', '.join(RECORDINGS)}",
    )
    explain.add_argument("--prometheus", metavar="URL", help="read the run from this server")
    explain.add_argument("--run-id", metavar="ID", help="which run (default: the newest)")
    explain.add_argument("--group-id", metavar="ID", help="which of its groups")
    explain.add_argument("--rank", type=int, metavar="N", help="which of its ranks")
    explain.add_argument("--all", action="store_true", help="every run, oldest first")
    explain.add_argument(
        "--format",
        choices=FORMATS,
        default="markdown",
        help="format of the report (default: markdown)",
    )
    explain.add_argument("--json", action="store_true", help="the same as --format json")

    def run(options: argparse.Namespace) -> int:
        if bool(options.sources) == bool(options.prometheus):
            explain.error("name a SOURCE, or --prometheus URL")
        return _run(options)

    explain.set_defaults(run=run)


def read(sources: list[str]) -> list[RunRecord]:
    """The runs of some sources, warnings on standard error. Raises CommandError for none."""
    from esper_exporter.journal.reading import read_runs
    from esper_exporter.journal.sources import SourceError

    try:
        with files_of(sources) as files:
            runs, warnings = read_runs(files)
    except SourceError as problem:
        raise CommandError(str(problem)) from None
    for warning in warnings:
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    if not runs:
        raise CommandError("no line is a usable telemetry event")
    return runs


def chosen(
    runs: list[RunRecord], run_id: str | None, group_id: str | None, rank: int | None
) -> list[RunRecord]:
    """The requested runs. Raises CommandError that lists the known runs if none matches."""
    found = [
        run
        for run in runs
        if (run_id is None or run.run_id == run_id)
        and (group_id is None or run.group_id == group_id)
        and (rank is None or run.rank == rank)
    ]
    if not found:
        known = ", ".join(dict.fromkeys(f"{run.run_id} ({run.group_id})" for run in runs))
        raise CommandError(f"no such run; known are {known}")
    return found


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.journal import render
    from esper_exporter.journal.report import as_json, explain

    if options.prometheus:
        from esper_exporter.journal.prometheus import PrometheusError, runs_of

        try:
            runs = runs_of(options.prometheus, options.run_id)
        except PrometheusError as problem:
            raise CommandError(str(problem)) from None
    else:
        runs = read(options.sources)
    found = chosen(runs, options.run_id, options.group_id, options.rank)
    if not options.all:
        found = [_worst(found)]
    reports = [explain(run) for run in found]
    form = "json" if options.json else options.format
    if form == "json":
        text = as_json(reports if options.all else reports[0]) + "\n"
    elif form == "html":
        text = render.page("Runs", "\n<hr>\n".join(render.section(report) for report in reports))
    else:
        text = "\n".join(render.markdown(report) for report in reports)
    write_out(text.encode())
    return OK


def _worst(runs: list[RunRecord]) -> RunRecord:
    """The group and rank of the newest run id in which something went wrong first."""
    from esper_exporter.journal.causes import find, first_cause

    newest = [run for run in runs if run.source == runs[-1].source]
    causes = [(first_cause(run, find(run)), run) for run in newest]
    wrong = [(cause, run) for cause, run in causes if cause is not None]
    if not wrong:
        return newest[-1]
    timed = [(cause.time, run) for cause, run in wrong if cause.time is not None]
    return min(timed, key=lambda each: each[0])[1] if timed else wrong[0][1]
