"""The command ``esper-exporter assets``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from esper_exporter.commands.console import OK, CommandError, write_out


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    assets = commands.add_parser(
        "assets",
        help="write the dashboards, rules and deployment files that come with the package",
        description="Write dashboards, alerting rules, Grafana provisioning, the compose stack and"
        " the Kubernetes files of this version into DIR, and the wheel that the image installs.",
    )
    assets.add_argument("directory", metavar="DIR", help="created if missing")
    assets.add_argument("--force", action="store_true", help="replace existing files that differ")
    assets.add_argument(
        "--grafana-url",
        metavar="URL",
        help="address of your Grafana, put in front of the alerts' dashboard links",
    )
    assets.add_argument(
        "--runbook-url",
        metavar="URL",
        help="URL at which DIR is readable, put in front of the alerts' runbook links",
    )
    assets.add_argument(
        "--cluster-label",
        default="cluster",
        metavar="LABEL",
        help="label that identifies a cluster in a global view (default: %(default)s)",
    )
    assets.add_argument(
        "--selector",
        default="",
        metavar="MATCHERS",
        help="matchers for every series that the rules read, such as 'env=\"prod\"'",
    )
    assets.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.assets import assets
    from esper_exporter.rule_options import RuleOptions
    from esper_exporter.wheel import packed_wheel

    try:
        chosen = RuleOptions(options.cluster_label, options.selector)
    except ValueError as error:
        raise CommandError(str(error)) from error
    directory = Path(options.directory)
    if directory.exists() and not directory.is_dir():
        raise CommandError(f"{directory}: is not a directory")
    try:
        wanted = {
            directory / name: chosen.applied(
                name, _linked(source.read_bytes(), options.grafana_url, options.runbook_url)
            )
            for name, source in assets().items()
        }
        if wheel := packed_wheel():
            wanted[directory / wheel[0]] = wheel[1]
        for path, content in wanted.items():
            if path.exists() and not options.force and path.read_bytes() != content:
                raise CommandError(f"{path} exists and differs; --force replaces it")
        modes = {directory / name: source.stat().st_mode for name, source in assets().items()}
        for path, content in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(modes.get(path, 0o644))
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    write_out(f"{len(wanted)} files in {directory}; deploy/README.md describes them\n".encode())
    return OK


def _linked(content: bytes, grafana: str | None, runbooks: str | None) -> bytes:
    """A file in which the paths of dashboards and runbooks are addresses, where one is given."""
    for label, url in ((b"dashboard_url", grafana), (b"runbook_url", runbooks)):
        if url is not None:
            front = url.rstrip("/").encode() + b"/"
            content = re.sub(
                rb"^( *" + label + rb': "?)/?(?=d/|alerts/)',
                lambda found, front=front: found[1] + front,  # type: ignore[misc]
                content,
                flags=re.MULTILINE,
            )
    return content
