"""The command ``esper-exporter prune``."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper_exporter.commands.console import OK, CommandError, write_out


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    prune = commands.add_parser(
        "prune",
        help="remove the target files of processes that have ended",
        description="Remove from DIR the target files of this host's processes that have ended."
        " Files of other hosts stay: run the command there.",
    )
    prune.add_argument("directory", metavar="DIR", help="the directory of Exporter(file_sd=DIR)")
    prune.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.serve.target_file import prune

    try:
        removed = prune(Path(options.directory))
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    write_out("".join(f"{path}\n" for path in removed).encode())
    return OK
