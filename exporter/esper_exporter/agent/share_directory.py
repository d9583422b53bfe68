"""The directory that exporters and the agent of a node share.

It holds one directory for each process, ``PID-START-TOKEN``, with its page, its layout, its
identity, the lock that it holds while it lives, and the record of its end, if a wrapper waited
for it. Beside them lie the locks of the agent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from esper_exporter.agent.owned_file import PageRefused, open_owned
from esper_exporter.agent.process_identity import ProcessIdentity

PAGE = "page"
LOCK = "lock"
IDENTITY = "process.json"
DEATH = "death.json"
SOCKET = "http.sock"
STATE = "state.json"
CLOSED = "closed"
"""Written by an exporter that was closed, and so did not die."""
EXIT = "exit.json"
"""Written by the wrapper that waited for the process."""
AGENT_LOCK = "agent.lock"
"""Locked by the agent, or wrapper, that serves the share."""
AGENT_CLAIM = "agent.claim"
"""Locked by an agent from its start on: a wrapper that serves hands the share over to it."""
MAX_PROCESSES = 4096
_MAX_IDENTITY = 65_536


def make_share(path: Path) -> None:
    """Make the share where it is missing, for this user alone (mode 0700).

    Raises OSError, or PageRefused where another user could plant files in it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_share(path)


def check_share(path: Path) -> os.stat_result:
    """The share's status. Raises FileNotFoundError, OSError, or PageRefused for a symbolic link
    or a directory that others may write to (but one with the sticky bit, as /tmp has it)."""
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise PageRefused("not_a_directory", f"{path} is not a directory")
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not found.st_mode & stat.S_ISVTX:
        raise PageRefused("writable", f"{path} can be written by others and has no sticky bit")
    return found


def owners_of(share: os.stat_result, process: os.stat_result) -> frozenset[int]:
    """The users whose files may lie in a process' directory. Raises PageRefused.

    In a private share they are its owner's or this process' own. In one that is open to all (sticky
    bit) each process' files belong to whom its directory belongs to.
    """
    if share.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return frozenset({process.st_uid})
    allowed = frozenset({share.st_uid, os.getuid()})
    if process.st_uid not in allowed:
        raise PageRefused("owner", f"it belongs to user {process.st_uid}")
    return allowed


def identify(share: Path, directory: Path) -> tuple[frozenset[int], ProcessIdentity]:
    """The users whose files may lie in a process' directory, and the process itself.

    Raises PageRefused, FileNotFoundError or OSError.
    """
    owners = owners_of(check_share(share), os.stat(directory, follow_symlinks=False))
    handle = open_owned(directory / IDENTITY, owners, _MAX_IDENTITY)
    with open(handle, "rb") as file:
        data = file.read(_MAX_IDENTITY)
    try:
        return owners, ProcessIdentity.from_json(data)
    except ValueError as problem:
        raise PageRefused("corrupt", f"{directory / IDENTITY}: {problem}") from None


def process_directories(share: Path) -> Iterator[Path]:
    """The directories of processes, by name."""
    with os.scandir(share) as entries:
        names = sorted(entry.name for entry in entries if entry.name[:1].isdigit())
    yield from (share / name for name in names[:MAX_PROCESSES])


def write_record(path: Path, data: bytes) -> None:
    """Replace a small file atomically. Raises OSError; the old file then stays."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(beside, flags, 0o600)
    try:
        os.write(handle, data)
        os.link(beside, path)
    finally:
        os.close(handle)
        os.unlink(beside)


def remove_process(directory: Path) -> None:
    """Remove a process' directory and what exporters and agents put into it. Raises OSError."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
    directory.rmdir()
