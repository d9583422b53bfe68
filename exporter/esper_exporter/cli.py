"""The command line ``esper-exporter``: which commands there are, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from esper_exporter.commands import assets, backfill, catalog, demo, prune, replay, version
from esper_exporter.commands.console import FAILED, INTERRUPTED, PROGRAM, CommandError

COMMANDS = (demo, replay, backfill, catalog, assets, prune, version)
"""A module each: ``add(commands)`` adds a parser whose default ``run`` takes the options and
returns the exit code, or raises CommandError."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Prometheus exporter for esper's training runs, from recorded events.",
    )
    parser.add_argument("--version", action="version", version=version.TEXT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse's own errors exit with 2."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except CommandError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code
