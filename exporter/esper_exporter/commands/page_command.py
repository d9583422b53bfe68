"""The command ``esper-exporter page``: print the page as it was at a time of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter.commands.console import OK, PROGRAM, CommandError, write_out
from esper_exporter.commands.values import whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    Lines = Callable[[], Iterator[bytes]]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    page = commands.add_parser(
        "page",
        help="print the page as it was at a time of a run",
        description="Print the page as it was at a time, or after a policy update; equals"
        " `replay --once --until` that line.",
    )
    page.add_argument("source", metavar="SOURCE", help="a telemetry file or a journal")
    page.add_argument("--run-id", metavar="ID", help="which run of a journal (default: the newest)")
    page.add_argument("--group-id", metavar="ID", help="group whose updates --update counts")
    moment = page.add_mutually_exclusive_group(required=True)
    moment.add_argument(
        "--at", type=_time, metavar="TIME", help="a time, as 2026-11-21T00:45:11Z or unix seconds"
    )
    moment.add_argument("--update", type=whole_number, metavar="N", help="a policy update, from 1")
    page.add_argument(
        "--format", choices=("text", "openmetrics"), default="text", help="of the page"
    )
    page.set_defaults(run=_run)


def _time(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 2026-11-21T00:45Z"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.exporter import Exporter
    from esper_exporter.journal.moments import NoMoment, line_at, line_of_update
    from esper_exporter.settings import OFF

    lines, run_id = _lines(options)
    try:
        until = (
            line_at(lines(), options.at)
            if options.at is not None
            else line_of_update(lines(), options.update, options.group_id)
        )
    except NoMoment as problem:
        raise CommandError(f"{options.source}: {problem}") from None
    exporter = Exporter(
        port=0,
        run_id=run_id,
        state_dir=OFF,
        watch_process=False,
        gpu_vitals=OFF,
        host_vitals=OFF,
        linger=0.0,
    )
    for number, line in enumerate(lines(), 1):
        if number > until:
            break
        if line and not line.isspace():
            exporter.emit_line(line)
    print(f"{PROGRAM}: the page after line {until:,}", file=sys.stderr)
    media = "application/openmetrics-text; version=1.0.0"
    write_out(exporter.render(media if options.format == "openmetrics" else None))
    return OK


def _lines(options: argparse.Namespace) -> tuple[Lines, str | None]:
    """The source's lines, readable repeatedly, and the run's name."""
    from esper_exporter.journal.sources import Reading, SourceError, chunks, find, is_journal

    path = Path(options.source)
    if is_journal(path):
        from esper_exporter.journal.journal_lines import journal_lines, run_ids

        known = run_ids(path)
        if not known:
            raise CommandError(f"{path}: contains no event")
        wanted = options.run_id or known[-1]
        if wanted not in known:
            raise CommandError(f"{path}: no run {wanted!r}; known are {', '.join(known)}")
        return partial(journal_lines, path, wanted), wanted
    try:
        found = find([options.source])
    except SourceError as problem:
        raise CommandError(str(problem)) from None
    if len(found.files) != 1:
        raise CommandError(f"{options.source}: contains several files; name one")

    def lines() -> Iterator[bytes]:
        for held in chunks(found.files[0], Reading(), 4096):
            yield from held

    return lines, options.run_id
