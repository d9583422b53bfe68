"""Threads of the exporter: daemons that leave every signal to the training's threads.

The kernel gives a signal to any thread that does not block it. A training that blocks SIGTERM in
its own threads, to finish a checkpoint or to take it with ``sigwait``, would die of it in ours.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

OF_THE_THREAD = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals that a thread gets for what it did itself; blocking these would hide a crash."""

BLOCKED = frozenset(signal.valid_signals()) - OF_THE_THREAD


def start_daemon(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread in which all signals but those of `OF_THE_THREAD` are blocked."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    # A new thread inherits its creator's mask: blocked here, there is no moment in which the
    # thread is alive and unprotected. Either call may raise what a signal handler raises, which
    # is why the mask is read before anything is changed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
