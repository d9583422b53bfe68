"""The command ``esper-exporter run``: runs a training program with an exporter attached."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from esper_exporter import adapters
from esper_exporter.commands.console import CommandError

AUTOATTACH = Path(adapters.__file__).parent / "autoattach"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    run = commands.add_parser(
        "run",
        help="run a training program with an exporter attached, without changing it",
        description="Run COMMAND; where it imports esper's telemetry hub, an exporter is attached"
        " and the trainer is measured. Arguments, standard streams, signals and the exit code pass"
        " through unchanged. All settings of the exporter are environment variables,"
        " ESPER_EXPORTER_PORT and so on.",
        epilog="Example: esper-exporter run --run-id night-7 -- python -m esper.scripts.train ppo."
        " Exit codes: the command's; 126 it cannot be run, 127 it was not found.",
    )
    run.add_argument("--run-id", metavar="ID", help="the label run_id of the run")
    run.add_argument("--host", metavar="ADDRESS", help="address to serve on")
    run.add_argument("--port", metavar="PORT", help="TCP port to serve on; 0 takes a free one")
    run.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the program to run"
    )
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.agent.child import run_child

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CommandError("run: no command; give it after --")
    return run_child(command, environment(options, os.environ))


def environment(options: argparse.Namespace, ours: os._Environ[str]) -> dict[str, str]:
    """The environment of the program: ours, and what attaches there."""
    path = [str(AUTOATTACH), *filter(None, [ours.get("PYTHONPATH")])]
    found = {**ours, "PYTHONPATH": os.pathsep.join(path)}
    for name in ("run_id", "host", "port"):
        value = getattr(options, name)
        if value is not None:
            found[f"ESPER_EXPORTER_{name.upper()}"] = value
    return found
