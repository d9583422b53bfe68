"""The command ``esper-exporter version``."""

from __future__ import annotations

import argparse

from esper_exporter import __version__
from esper_exporter.commands.console import OK, PROGRAM, write_out

TEXT = f"{PROGRAM} {__version__}"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    version = commands.add_parser(
        "version", help="print the version", description="Print the version."
    )
    version.set_defaults(run=_run)


def _run(_options: argparse.Namespace) -> int:
    write_out(f"{TEXT}\n".encode())
    return OK
