"""Memory control groups with a limit, in which the kernel kills a process that exceeds it."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

LIMIT_BYTES = 200 << 20
_ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A control group with a limit of 200 MB, a member of this process's group.

    Raises OSError where this process may not make one.
    """

    def __init__(self) -> None:
        problem: OSError = FileNotFoundError("no control group for memory")
        for parent, limit in _parents():
            self.path = parent / f"esper-test-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                self.path.mkdir()
                (self.path / limit).write_text(str(LIMIT_BYTES))
                return
            except OSError as error:
                problem = error
                with suppress(OSError):
                    self.path.rmdir()
        raise problem

    def within(self) -> tuple[str, ...]:
        """What a command begins with to run in this group."""
        return "sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"

    def remove(self, seconds: float = 20.0) -> None:
        """Remove the group once its last process is gone. Raises OSError after ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.path.rmdir()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _parents() -> list[tuple[Path, str]]:
    """Where a group may be made, and the file of its limit: versions 1 and 2."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append((_ROOT / "memory" / path.strip("/"), "memory.limit_in_bytes"))
        elif controllers == "" and (_ROOT / "cgroup.controllers").exists():
            found.append((_ROOT / path.strip("/"), "memory.max"))
    return found
