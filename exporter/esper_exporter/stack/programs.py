"""Find this machine's Prometheus, Alertmanager and Grafana, or name where to get them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from esper_exporter.commands.console import CommandError


@dataclass(frozen=True, slots=True)
class Kind:
    """A server of the stack: its option, its program's names, and where to get it."""

    option: str
    title: str
    names: tuple[str, ...]
    origin: str


PROMETHEUS = Kind(
    "prometheus",
    "Prometheus",
    ("prometheus",),
    "apt-get install prometheus, or unpack a release from prometheus.io/download and name its"
    " folder with --prometheus",
)
ALERTMANAGER = Kind(
    "alertmanager",
    "Alertmanager",
    ("prometheus-alertmanager", "alertmanager"),
    "apt-get install prometheus-alertmanager, or unpack a release from prometheus.io/download and"
    " name its folder with --alertmanager",
)
GRAFANA = Kind(
    "grafana",
    "Grafana",
    ("grafana-server", "grafana"),
    "Debian has none: unpack a release from grafana.com/grafana/download and name its folder with"
    " --grafana",
)
KINDS = (PROMETHEUS, ALERTMANAGER, GRAFANA)


def find(kind: Kind, given: str | None) -> Path | None:
    """The program: the given file, the one in the given folder, or the one on PATH, else None.

    Raises CommandError when the given path contains no such program.
    """
    if given is None:
        found = next(filter(None, map(shutil.which, kind.names)), None)
        return None if found is None else Path(found)
    path = Path(given).absolute()
    places = [path]
    if path.is_dir():
        places = [folder / name for folder in (path, path / "bin") for name in kind.names]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return place
    if not path.exists():
        raise CommandError(f"--{kind.option} {given}: does not exist")
    wanted = " or ".join(kind.names)
    raise CommandError(f"--{kind.option} {given}: contains no executable {wanted}")


def grafana_home(program: Path) -> Path | None:
    """The folder with Grafana's files: an unpacked release's or a package's."""
    for home in (program.parent.parent, program.parent, Path("/usr/share/grafana")):
        if (home / "conf" / "defaults.ini").is_file():
            return home
    return None
