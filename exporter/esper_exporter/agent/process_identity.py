"""Which process wrote a shared page, and whether it still lives.

A process id alone is not enough: the kernel reuses it. The id, the start time and the boot
identify a process, and it lives as long as it holds a lock, which the kernel releases however
the process ends.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

WRAPPER_VARIABLE = "ESPER_EXPORTER_WRAPPER"
"""Set by ``esper-exporter run`` for its child: the token that names the wrapper's record."""
_PROC = Path("/proc")
_MAX_TEXT = 1024


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process as its shared page names it.

    ``start_ticks`` is its start in clock ticks since boot (0 where /proc does not say),
    ``pid_namespace`` says whether ``pid`` is valid for a reader, ``wrapper`` is the token
    of the ``esper-exporter run`` that started it, or empty, ``run_id`` the run that it
    was started for, or empty.
    """

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: str
    host: str
    uid: int
    started_at: float
    exporter_version: str
    rank: int
    run_id: str
    wrapper: str

    def to_json(self) -> bytes:
        """One JSON object."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> ProcessIdentity:
        """Parse the output of `to_json`. Raises ValueError."""
        raw: Any = orjson.loads(data)
        if not isinstance(raw, dict):
            raise ValueError("not an object")
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = raw.get(field.name, "" if field.name == "run_id" else None)
            kind = {"int": int, "float": float, "str": str}[str(field.type)]
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind or (isinstance(value, str) and len(value) > _MAX_TEXT):
                raise ValueError(f"{field.name} is not {kind.__name__}")
            values[field.name] = value
        return cls(**values)


def boot_id() -> str:
    """The kernel's identifier of this boot, empty where it has none."""
    with suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def pid_namespace() -> str:
    """The process namespace that identifiers of this process belong to."""
    with suppress(OSError):
        return os.readlink(_PROC / "self/ns/pid")
    return ""


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name may hold spaces and parentheses; what follows the last one does not.
    rest = text.rpartition(")")[2].split()
    return int(rest[19]) if len(rest) > 19 and rest[19].isdigit() else None


class LifeLock:
    """The lock that a process holds on a file while it lives. Raises OSError.

    An flock belongs to the open file, so that a child forked by the process would keep it: call
    `release` in the child.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise

    def release(self) -> None:
        """Close this process's copy of the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock on this file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def lives(identity: ProcessIdentity, lock: Path) -> bool:
    """Whether the process that wrote a page still lives.

    A lock that an orphaned child still holds does not keep a process alive whose start time is no
    longer in /proc; if /proc belongs to another namespace, the lock alone decides.
    """
    if not is_locked(lock):
        return False
    if identity.boot_id and identity.boot_id != boot_id():
        return False
    if identity.start_ticks and identity.pid_namespace == pid_namespace():
        return start_ticks(identity.pid) == identity.start_ticks and not _is_zombie(identity.pid)
    return True


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        return text.rpartition(")")[2].split()[:1] in (["Z"], ["X"])
    return False
