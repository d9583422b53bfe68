"""The command line ``esper-exporter``: which commands there are, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from esper_exporter.commands import (
    agent_command,
    assets_command,
    backfill_command,
    catalog_command,
    compare_command,
    completion_command,
    demo_command,
    doctor_command,
    explain_command,
    journal_command,
    mcp_command,
    page_command,
    prune_command,
    replay_command,
    run_command,
    sql_command,
    stack_command,
    version_command,
    watch_command,
)
from esper_exporter.commands.console import FAILED, INTERRUPTED, OK, PROGRAM, CommandError

COMMANDS = (
    demo_command,
    run_command,
    agent_command,
    replay_command,
    watch_command,
    backfill_command,
    mcp_command,
    page_command,
    journal_command,
    compare_command,
    explain_command,
    sql_command,
    stack_command,
    doctor_command,
    catalog_command,
    assets_command,
    prune_command,
    completion_command,
    version_command,
)
"""One module a command, ``NAME_command.py``. Its ``add(commands)`` adds a parser whose default
``run`` takes the options and returns the exit code, or raises CommandError."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Prometheus exporter for esper's training runs. In a training process it is"
        " the Python class Exporter; these commands replay, demonstrate, check and deploy it.",
        epilog="`esper-exporter COMMAND --help` explains a command. Exit codes: 0 done, 1 it could"
        " not be done, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=version_command.TEXT)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse's own errors exit with 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return OK
    try:
        code: int = options.run(options)
    except CommandError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code
