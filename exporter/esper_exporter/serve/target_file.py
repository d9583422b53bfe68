"""Target files: processes with a shared folder register their pages with Prometheus.

The format is that of Prometheus's file_sd (and http_sd). Each process writes one file, which no
other process writes, so nothing needs a lock. All labels start with ``__``: users can see and
relabel them, and Prometheus drops them before they could clash with the samples' ``run_id`` and
``rank``.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from esper_exporter.atomic_file import Files

META = "__meta_esper_"
_LEFTOVER_SECONDS = 3600.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies a process among all on a shared file system, past and present.

    ``host`` is the host's name: hosts that share a folder need distinct names. ``boot`` and
    ``namespace`` are the scope of ``pid`` and ``started`` (clock ticks since the boot).
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def own(cls) -> Identity:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid) or 0)

    @property
    def filename(self) -> str:
        """The name of the process' target file."""
        return f"{_stem(self.host)}{self.pid}-{self.started}.json"

    def gone(self, observer: Identity) -> bool:
        """Whether the observer knows that this process has ended; False where it cannot know."""
        if (self.host, self.namespace) != (observer.host, observer.namespace):
            return False
        if not (observer.boot and observer.started):
            return False
        return self.boot != observer.boot or _started(self.pid) != self.started


def _stem(host: str) -> str:
    return f"esper-{re.sub(r'[^A-Za-z0-9._]', '_', host)}-"


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """A process's start in clock ticks since the boot; None where there is no such process."""
    try:
        # The name in parentheses may contain anything; the fields after it have a fixed order.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie has ended; its parent has not reaped it yet.
    return None if fields[0] == b"Z" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Target:
    """A page's address (``HOST:PORT``), and its labels."""

    address: str
    scheme: str = "http"
    run_id: str = ""
    group_id: str = ""
    task: str = ""
    rank: str = ""

    def document(self, identity: Identity) -> bytes:
        """The content of a target file."""
        known = {
            "run_id": self.run_id,
            "group_id": self.group_id,
            "task": self.task,
            "rank": self.rank,
            "host": identity.host,
            "boot": identity.boot,
            "pid_namespace": identity.namespace,
            "pid": str(identity.pid),
            "process_started": str(identity.started),
        }
        labels = {META + name: value for name, value in known.items() if value}
        groups = [{"targets": [self.address], "labels": {"__scheme__": self.scheme, **labels}}]
        return json.dumps(groups, indent=1).encode() + b"\n"


def prune(directory: Path, files: Files | None = None) -> list[Path]:
    """Remove the target files of this host's ended processes, and return their paths.

    Other hosts' files stay: only those hosts know. Missing or foreign files are not errors. Raises
    OSError when it cannot read the directory or remove a file.
    """
    observer = Identity.own()
    removed = []
    for path in _own_files(directory, observer.host):
        identity = _identity(path)
        if identity is not None and identity.gone(observer):
            with suppress(FileNotFoundError):  # another process was faster
                path.unlink()
                removed.append(path)
    (files or Files()).keep_younger(
        directory, f".{_stem(observer.host)}*.json.*.new", _LEFTOVER_SECONDS
    )
    return removed


def _own_files(directory: Path, host: str) -> Iterator[Path]:
    start = _stem(host)
    names = sorted(os.listdir(directory))
    return (directory / n for n in names if n.startswith(start) and n.endswith(".json"))


def _identity(path: Path) -> Identity | None:
    """The process that wrote a target file; None where the file does not identify it."""
    try:
        labels = json.loads(path.read_bytes())[0]["labels"]
        return Identity(
            labels[META + "host"],
            labels[META + "boot"],
            labels[META + "pid_namespace"],
            int(labels[META + "pid"]),
            int(labels[META + "process_started"]),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
