"""Map a wait status to a reason of ``esper_run_failed``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from esper_exporter.agent.exit_status import Exit
from esper_exporter.state.failure_reason import Reason

_BY_SIGNAL = {
    signal.SIGSEGV: Reason.SEGFAULT,
    signal.SIGBUS: Reason.SEGFAULT,
    signal.SIGABRT: Reason.ABORT,
    signal.SIGKILL: Reason.KILLED,
}
_GROUPS = Path("/sys/fs/cgroup")
SHELL_SIGNALS = 128
_LAST_SIGNAL = 64


def exit_of(status: int, *, out_of_memory: bool, by_shell: bool = False) -> Exit:
    """How a process ended. ``out_of_memory``: the OOM killer acted meanwhile;
    ``by_shell``: the status is a shell's, which reports 128 + N for a child that signal N ended.
    """
    now = time.time()
    if os.WIFSIGNALED(status):
        return _signalled(os.WTERMSIG(status), out_of_memory, now)
    code = os.WEXITSTATUS(status)
    if by_shell and SHELL_SIGNALS < code <= SHELL_SIGNALS + _LAST_SIGNAL:
        return _signalled(code - SHELL_SIGNALS, out_of_memory, now)
    return Exit(Reason.EXIT.value if code else "", 0, code, now)


def _signalled(number: int, out_of_memory: bool, now: float) -> Exit:
    reason = _BY_SIGNAL.get(signal.Signals(number), Reason.SIGNAL) if number < 32 else Reason.SIGNAL
    if reason is Reason.KILLED and out_of_memory:
        reason = Reason.OOM
    return Exit(reason.value, number, SHELL_SIGNALS + number, now)


class OomWatch:
    """Detects whether the OOM killer killed a process of this control group.

    ``memory.events`` of the process' control group (version 2) or ``memory.oom_control``
    (version 1) count such kills of its members, whatever group's limit was hit. A count that rose
    while a process ran proves that there was one; nothing else does. It does not say which: a
    process of the same group that gets a SIGKILL meanwhile counts as well.
    """

    def __init__(self, read_group: Callable[[], str] | None = None, root: Path = _GROUPS) -> None:
        text = (read_group or _own_groups)()
        self._files = _event_files(text, root)
        self._before = self._count()

    def killed(self) -> bool:
        """Whether a count rose since construction."""
        now = self._count()
        return any(now[path] > count for path, count in self._before.items() if path in now)

    def _count(self) -> dict[Path, int]:
        counts = {}
        for path in self._files:
            try:
                text = path.read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill" and value.isdigit():
                    counts[path] = int(value)
        return counts


def _own_groups() -> str:
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _event_files(text: str, root: Path) -> list[Path]:
    """The files that count kills in the groups that /proc/self/cgroup names."""
    found: list[Path] = []
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part and part != ".."]
        if controllers == "":
            bases, name = [root, root / "unified"], "memory.events"
        elif "memory" in controllers.split(","):
            bases, name = [root / "memory"], "memory.oom_control"
        else:
            continue
        # Inside a container the mount begins at the group itself: its root is the group then.
        places = (base.joinpath(*group) / name for base in bases for group in (parts, ()))
        found += [place for place in places if place.is_file()][:1]
    return found
