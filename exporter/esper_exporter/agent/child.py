"""Run child processes transparently: same streams, signals and exit status."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

FROM_TERMINAL = 0x80
"""``si_code`` of a signal that the kernel sends: a terminal's go to the child as well."""

_UNBLOCKABLE = {signal.SIGKILL, signal.SIGSTOP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
WATCHED = set(signal.valid_signals()) - _UNBLOCKABLE - _FAULTS
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these two; a program started from a shell does not."""


class Children:
    """Child processes, one or several.

    Make it on the main thread before any thread is started: it blocks the signals that `wait`
    passes on, in this thread and in those that it starts from then on.
    """

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        self.running: set[int] = set()
        self.ended: dict[int, int] = {}
        """Process → wait status of each ended child."""
        self.signalled: set[int] = set()
        """Children that were sent a signal to end them, by `end`."""
        self._kill_at: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a command, found on its PATH; its process identifier. Raises OSError."""
        sys.stdout.flush()
        sys.stderr.flush()
        program = shutil.which(command[0], path=environment.get("PATH")) or command[0]
        pid = os.posix_spawn(
            program,
            list(command),
            dict(environment),
            setsigmask=self._mask,
            setsigdef=_IGNORED_BY_PYTHON,
        )
        self.running.add(pid)
        return pid

    def wait(self) -> int | None:
        """Pass signals on until a child ends; its process identifier, None when none is left."""
        while self.running:
            ended = self._reap()
            if ended is not None:
                return ended
            came = self._next_signal()
            if came is None:
                self.send(signal.SIGKILL)
            elif came.si_signo != signal.SIGCHLD and came.si_code != FROM_TERMINAL:
                self.send(came.si_signo)
        return None

    def _next_signal(self) -> signal.struct_siginfo | None:
        """Wait for a signal; None when the time of `end` is over."""
        if self._kill_at is None:
            return signal.sigwaitinfo(WATCHED)
        came = signal.sigtimedwait(WATCHED, max(0.0, self._kill_at - time.monotonic()))
        if came is None:
            self._kill_at = None
        return came

    def end(self, seconds: float) -> None:
        """End every child that runs: by SIGTERM, and by SIGKILL what runs after ``seconds``."""
        self.signalled |= self.running
        self._kill_at = time.monotonic() + seconds
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send a signal to every child that runs."""
        for pid in self.running:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> int | None:
        for pid in tuple(self.running):
            # Check again after a stop: one SIGCHLD may cover several changes.
            while True:
                found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
                if not found:
                    break
                if not os.WIFSTOPPED(status):
                    self.running.discard(pid)
                    self.ended[pid] = status
                    return pid
                os.kill(os.getpid(), signal.SIGSTOP)  # so that the shell sees a stopped job
        return None

    def let_signals_in(self) -> None:
        """Restore the signal mask: no child is left to receive them."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def end_like(status: int) -> int:
    """End as a child with this wait status did: returns its exit code, or dies of its signal.

    Only the child dumps core.
    """
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if number not in _UNBLOCKABLE:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    sys.stdout.flush()
    os.kill(os.getpid(), number)
    return 128 + number  # a signal that does not end this process
