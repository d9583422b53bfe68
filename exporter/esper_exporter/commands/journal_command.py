"""The arguments of ``esper-exporter journal``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from esper_exporter.commands.console import FAILED, OK, PROGRAM, CommandError
from esper_exporter.commands.values import whole_number


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    journal = commands.add_parser(
        "journal",
        help="keep runs: import telemetry, compact, verify, prune",
        description="Work on a journal: the directory in which an exporter keeps every event that"
        " it accepted (Exporter(journal=DIR)).",
    )
    actions = journal.add_subparsers(dest="action", required=True, metavar="ACTION")

    bring = actions.add_parser("import", help="import telemetry files into a journal")
    bring.add_argument("directory", metavar="DIR", help="the journal; created if missing")
    bring.add_argument("files", metavar="FILE", nargs="+", help="telemetry, folders, globs")
    bring.set_defaults(run=_import)

    compact = actions.add_parser("compact", help="turn closed segments into Parquet")
    compact.add_argument("directory", metavar="DIR")
    _limits(compact)
    compact.add_argument("--quiet", action="store_true", help="say nothing")
    compact.set_defaults(run=_compact)

    verify = actions.add_parser("verify", help="read every byte and check it")
    verify.add_argument("directory", metavar="DIR")
    verify.set_defaults(run=_verify)

    prune = actions.add_parser("prune", help="remove the oldest parts")
    prune.add_argument("directory", metavar="DIR")
    _limits(prune)
    prune.set_defaults(run=_prune)


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-age", type=float, default=0.0, metavar="SECONDS", help="remove older runs"
    )
    parser.add_argument(
        "--max-bytes",
        type=whole_number,
        default=0,
        metavar="N",
        help="remove the oldest beyond this size",
    )


def _directory(options: argparse.Namespace) -> Path:
    from esper_exporter.journal.sources import is_journal

    path = Path(options.directory)
    if not is_journal(path):
        raise CommandError(f"{path}: no journal")
    return path


def _need_sql() -> None:
    from importlib.util import find_spec

    if not (find_spec("duckdb") and find_spec("pyarrow")):
        from esper_exporter.sql import MissingExtra

        raise CommandError(str(MissingExtra()))


def _import(options: argparse.Namespace) -> int:
    _need_sql()
    from esper_exporter.journal.segments import make_journal
    from esper_exporter.journal.sources import SourceError, find
    from esper_exporter.journal.store import PARTS, parts_of
    from esper_exporter.sql import read_file

    directory = Path(options.directory)
    try:
        found = find(options.files)
        make_journal(directory)
        code = OK
        for path in found.files:
            number = len(parts_of(directory)) + 1
            place = directory / PARTS / f"import-{number:06d}"
            beside = place.with_name(f".{place.name}.new")
            said = read_file(path, beside)
            beside.replace(place)
            for line in said:
                print(f"{PROGRAM}: warning: {line}", file=sys.stderr)
                code = FAILED
    except SourceError as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        raise CommandError(f"{directory}: {problem.strerror}") from problem
    print(f"{len(found.files)} files in {directory}")
    return code


def _compact(options: argparse.Namespace) -> int:
    _need_sql()
    from esper_exporter.journal.store import compact, prune

    directory = _directory(options)
    try:
        count, warnings = compact(directory)
        removed = (
            prune(directory, options.max_age, options.max_bytes)
            if options.max_age or options.max_bytes
            else []
        )
    except OSError as problem:
        raise CommandError(f"{directory}: {problem.strerror}") from problem
    if not options.quiet:
        for line in warnings:
            print(f"{PROGRAM}: warning: {line}", file=sys.stderr)
        print(f"{count:,} events compacted, {len(removed)} parts removed")
    return OK


def _verify(options: argparse.Namespace) -> int:
    from esper_exporter.journal.store import verify

    bad, count = verify(_directory(options))
    for line in bad:
        print(line)
    print(f"{count} files, {len(bad)} damaged")
    return FAILED if bad else OK


def _prune(options: argparse.Namespace) -> int:
    from esper_exporter.journal.store import prune

    try:
        removed = prune(_directory(options), options.max_age, options.max_bytes)
    except (OSError, ValueError) as problem:
        raise CommandError(str(problem)) from problem
    print(f"{len(removed)} parts removed")
    return OK
