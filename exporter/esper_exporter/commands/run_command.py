"""The command ``esper-exporter run``: run a training program with an exporter attached."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter import adapters
from esper_exporter.commands.console import PROGRAM, CommandError
from esper_exporter.commands.values import seconds, whole_number

if TYPE_CHECKING:
    from esper_exporter.agent.wrapper import EndPusher
    from esper_exporter.settings import Settings

AUTOATTACH = Path(adapters.__file__).parent / "autoattach"
NOT_EXECUTABLE, NOT_FOUND = 126, 127


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    run = commands.add_parser(
        "run",
        help="run a training program with an exporter attached, and report how it ended",
        description="Run COMMAND; if it imports esper's telemetry hub, attach an exporter"
        " and measure the trainer. Arguments, standard streams, signals and the exit code pass"
        " through unchanged. Unless standard error is a pipe, a line there names the page's"
        " address, or says that nothing was attached. When the program ends, the page shows"
        " how (esper_run_failed{reason}): an exception, an exit code, a signal, SIGKILL, or the"
        " kernel's OOM killer. The"
        " program itself ends at once; this machine's agent, or this command without an agent,"
        " keeps its last page up until every regular scraper has fetched it. Environment variables"
        " (ESPER_EXPORTER_PORT and so on) set all options of the exporter.",
        epilog="Examples: esper-exporter run --run-id night-7 -- python -m esper.scripts.train ppo;"
        " for each rank: torchrun --no-python esper-exporter run -- python train.py, or srun"
        " esper-exporter run -- python train.py. Exit codes: the command's; 126 not executable,"
        " 127 not found.",
    )
    run.add_argument("--run-id", metavar="ID", help="the label run_id of the run")
    run.add_argument("--host", metavar="ADDRESS", help="address to serve on")
    run.add_argument("--port", metavar="PORT", help="TCP port to serve on; 0 takes a free one")
    run.add_argument(
        "--push",
        metavar="URL",
        help="push the page to a receiver of Prometheus' remote write, and how the program ended"
        " where it cannot do so itself",
    )
    run.add_argument(
        "--agent",
        type=Path,
        metavar="DIR",
        help="the share of this machine's agent (default: this user's share)",
    )
    run.add_argument(
        "--nproc",
        type=whole_number,
        default=1,
        metavar="N",
        help="ranks to start, each with RANK, LOCAL_RANK and WORLD_SIZE set (%(default)s)",
    )
    run.add_argument(
        "--kill-after",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="when one rank has failed, the others get SIGTERM, and SIGKILL this much later"
        " (%(default)g)",
    )
    run.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the program to run"
    )
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.agent.wrapper import Launch, run
    from esper_exporter.settings import read_settings

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CommandError("run: no command; give it after --")
    if options.nproc < 1:
        raise CommandError("run: --nproc must be 1 or more")
    variables = environment(options, os.environ)
    try:
        share = options.agent or read_settings({}, variables).share
    except ValueError as error:
        raise CommandError(f"run: {error}") from error
    try:
        launch = Launch(command, variables, share, options.nproc, options.kill_after, _pushed_ends)
        return run(launch)
    except OSError as problem:
        print(f"{PROGRAM}: {command[0]}: {problem.strerror}", file=sys.stderr)
        return NOT_FOUND if problem.errno == errno.ENOENT else NOT_EXECUTABLE


def _pushed_ends(share: Path, settings: Settings) -> EndPusher:
    from esper_exporter.push.ended_process import PushedEnds

    return PushedEnds(share, settings)


def environment(options: argparse.Namespace, ours: os._Environ[str]) -> dict[str, str]:
    """The program's environment: this process's, with the variables that attach the exporter."""
    path = [str(AUTOATTACH), *filter(None, [ours.get("PYTHONPATH")])]
    found = {**ours, "PYTHONPATH": os.pathsep.join(path)}
    for name in ("run_id", "host", "port", "push"):
        value = getattr(options, name)
        if value is not None:
            found[f"ESPER_EXPORTER_{name.upper()}"] = value
    return found
