"""A child process as if it had been started without us: same streams, signals and exit status."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

NOT_EXECUTABLE, NOT_FOUND = 126, 127
FROM_TERMINAL = 0x80
"""``si_code`` of a signal that the kernel sends: a terminal's go to the child as well."""

_UNBLOCKABLE = {signal.SIGKILL, signal.SIGSTOP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run ``command`` and return its exit code; 126 or 127 with a message if it cannot be started.

    Signals sent to this process go on to the child; when a signal ends the child, this process ends
    by the same signal, so that whoever waits sees the child's own status. Call it on the main
    thread of a process that has no others.
    """
    program = shutil.which(command[0], path=environment.get("PATH")) or command[0]
    watched = set(signal.valid_signals()) - _UNBLOCKABLE - _FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        try:
            # Python ignores these two; a program started from a shell does not.
            default = [signal.SIGPIPE, signal.SIGXFSZ]
            child = os.posix_spawn(
                program, list(command), environment, setsigmask=before, setsigdef=default
            )
        except OSError as problem:
            print(f"esper-exporter: {command[0]}: {problem.strerror}", file=sys.stderr)
            missing = problem.errno == errno.ENOENT
            return NOT_FOUND if missing else NOT_EXECUTABLE
        status = _wait(child, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.WIFSIGNALED(status):
        _end_by(signal.Signals(os.WTERMSIG(status)))
    return os.waitstatus_to_exitcode(status)


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """The child's wait status, once it has ended; signals that come until then go to it."""
    while True:
        told = signal.sigwaitinfo(watched)
        if told.si_signo == signal.SIGCHLD:
            # A WNOHANG wait, again: one SIGCHLD may stand for several changes.
            while True:
                found, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
                if not found:
                    break
                if not os.WIFSTOPPED(status):
                    return status
                os.kill(os.getpid(), signal.SIGSTOP)  # so that the shell sees a stopped job
        elif told.si_code != FROM_TERMINAL:
            with suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _end_by(number: signal.Signals) -> None:
    """End this process by a signal. The child has dumped core, if anyone should."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if number not in _UNBLOCKABLE:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    sys.stdout.flush()
    os.kill(os.getpid(), number)
