"""The command ``esper-exporter assets``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from esper_exporter.terminal import OK, CommandError, write_out


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    assets = commands.add_parser(
        "assets",
        help="write the dashboards, rules and deployment files that come with the package",
        description="Write dashboards, alerting rules, Grafana provisioning, the compose stack and"
        " the Kubernetes files of this version into DIR.",
    )
    assets.add_argument("directory", metavar="DIR", help="made when it is not there")
    assets.add_argument(
        "--force", action="store_true", help="replace files that are there and differ"
    )
    assets.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.assets import assets

    directory = Path(options.directory)
    try:
        wanted = {directory / name: source for name, source in assets().items()}
        for path, source in wanted.items():
            if path.exists() and not options.force and path.read_bytes() != source.read_bytes():
                raise CommandError(f"{path} is there and differs; --force replaces it")
        for path, source in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    write_out(f"{len(wanted)} files in {directory}; deploy/README.md says what is what\n".encode())
    return OK
