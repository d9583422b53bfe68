"""How the end of the process is noticed: uncaught exceptions, SIGTERM, the interpreter's exit.

Everything is chained: earlier hooks are called as before, with the same arguments, and
the exit code and the traceback are what they would have been. Nothing here keeps an exporter
alive, and a forked child is left as it would be without us.

SIGTERM's default would end the process at once. Without another handler, our thread
keeps the page up for a while and then lets the default happen; meanwhile the interrupted code goes
on, since whatever it holds (a lock, say) it must be able to give back. A second SIGTERM ends at
once, unless it comes with the first (see `ONE_REQUEST_SECONDS`), and so does Ctrl-C where its
handler is Python's own. A handler of the user's own is called and decides; the end is noticed when
it comes.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Protocol

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.shutdown.seam_frames import hide_seams

logger = logging.getLogger("esper_exporter")


ONE_REQUEST_SECONDS = 1.0
"""SIGTERMs that come within this time are one request: Slurm and systemd signal every process of a
job, and a wrapper among them passes it on."""


class Watcher(Protocol):
    """Notified of how the process ends. Its methods must not raise."""

    def uncaught(self, error: BaseException) -> None:
        """The main thread dies of an exception."""

    def uncaught_in_thread(self, error: BaseException) -> None:
        """Another thread died of an exception; the process may continue."""

    def termination_requested(self) -> None:
        """SIGTERM came, and the user's own handler is about to decide what it means."""

    def terminate(self) -> None:
        """SIGTERM came and will end the process when this returns. Called on our thread."""

    def exit(self) -> None:
        """The interpreter ends."""


class _Process:
    """The hooks of this process, installed while an exporter watches."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        self.pid = os.getpid()
        self.hooked = False
        self.at_exit = False
        self.excepthook: Any = None
        self.threading_excepthook: Any = None
        self.sigterm: Any = None
        self.sigint: Any = None
        self.terminating: threading.Thread | None = None
        self.asked_at = 0.0
        self.all_notified = False

    def all(self) -> list[Watcher]:
        return [] if os.getpid() != self.pid else list(self.watchers)


_process = _Process()


def watch(watcher: Watcher) -> None:
    """Notify a watcher how the process ends; idempotent."""
    with _process.lock:
        _process.pid = os.getpid()
        _process.watchers.add(watcher)
        if not _process.at_exit:
            _process.at_exit = True
            atexit.register(_on_exit)
        if not _process.hooked:
            _process.hooked = True
            _process.excepthook, sys.excepthook = sys.excepthook, _on_uncaught
            _process.threading_excepthook = threading.excepthook
            threading.excepthook = _on_uncaught_in_thread
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) is not _on_sigterm:
            before = signal.getsignal(signal.SIGTERM)
            # Ignored stays ignored, and a handler that Python does not know cannot be chained.
            if before is signal.SIG_DFL or callable(before):
                _process.sigterm = before
                signal.signal(signal.SIGTERM, _on_sigterm)


def unwatch(watcher: Watcher) -> None:
    """Stop notifying it; the last one removes the hooks unless others were installed on top."""
    with _process.lock:
        _process.watchers.discard(watcher)
        if _process.watchers or not _process.hooked:
            return
        if sys.excepthook is _on_uncaught and threading.excepthook is _on_uncaught_in_thread:
            sys.excepthook = _process.excepthook
            threading.excepthook = _process.threading_excepthook
            _process.hooked = False
        if (
            _in_main_thread()
            and signal.getsignal(signal.SIGTERM) is _on_sigterm
            and _process.terminating is None
        ):
            signal.signal(signal.SIGTERM, _process.sigterm)


def ends_at_once() -> str | None:
    """What ends the process without further waiting, None when nothing is known to."""
    ctrl_c = signal.getsignal(signal.SIGINT)
    if _process.terminating is not None:
        return "SIGTERM again or Ctrl-C" if ctrl_c is _on_second_signal else "SIGTERM again"
    if _in_main_thread() and ctrl_c is signal.default_int_handler:
        return "Ctrl-C"
    return None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _guarded(call: Callable[[], None]) -> None:
    """Call a watcher; whatever it raises, SystemExit too, the process ends as it would."""
    try:
        call()
    except BaseException:
        logger.debug("a watcher failed", exc_info=True)


def _on_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    for watcher in _process.all():
        _guarded(partial(watcher.uncaught, error))
    if trace is error.__traceback__:
        _guarded(partial(hide_seams, error))
        trace = error.__traceback__
    _process.excepthook(kind, error, trace)


def _on_uncaught_in_thread(exception: threading.ExceptHookArgs) -> None:
    if exception.exc_value is not None and not isinstance(exception.exc_value, SystemExit):
        for watcher in _process.all():
            _guarded(partial(watcher.uncaught_in_thread, exception.exc_value))
        if exception.exc_traceback is exception.exc_value.__traceback__:
            _guarded(partial(hide_seams, exception.exc_value))
            trace = exception.exc_value.__traceback__
            exception = threading.ExceptHookArgs((*exception[:2], trace, exception.thread))
    _process.threading_excepthook(exception)


def _on_exit() -> None:
    for watcher in _process.all():
        _guarded(watcher.exit)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    main = threading.main_thread().ident
    if main is not None and number in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        # A thread of some library (numpy's) took what the training puts off: it stays pending.
        signal.pthread_kill(main, number)
        return
    before = _process.sigterm
    watchers = _process.all()
    if callable(before):
        for watcher in watchers:
            watcher.termination_requested()
        before(number, frame)
    elif not watchers or _process.all_notified:
        _on_second_signal(number, frame)
    elif _process.terminating is not None:
        if time.monotonic() - _process.asked_at > ONE_REQUEST_SECONDS:
            _on_second_signal(number, frame)
    else:
        _process.asked_at = time.monotonic()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # KeyboardInterrupt would run the rest of the training's code, and the wait with it.
            _process.sigint = signal.signal(signal.SIGINT, _on_second_signal)
        _process.terminating = start_daemon(partial(_terminate, watchers), "esper-exporter-sigterm")


def _on_second_signal(number: int, frame: FrameType | None) -> None:
    """End as the first SIGTERM would have ended the process, at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(watchers: list[Watcher]) -> None:
    try:
        for watcher in watchers:
            _guarded(watcher.terminate)
    finally:
        _process.all_notified = True
        os.kill(os.getpid(), signal.SIGTERM)  # now the handler lets it happen


def _after_fork_in_child() -> None:
    """A child ends as it would have without us; data loaders are ended by SIGTERM."""
    global _process
    before = _process
    # Other code may have put hooks on top of ours: they still call the earlier hook.
    _process = _Process()
    _process.at_exit = before.at_exit
    _process.excepthook = before.excepthook
    _process.threading_excepthook = before.threading_excepthook
    _process.sigterm = before.sigterm
    _process.sigint = before.sigint
    if sys.excepthook is _on_uncaught:
        sys.excepthook = before.excepthook
    if threading.excepthook is _on_uncaught_in_thread:
        threading.excepthook = before.threading_excepthook
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, before.sigterm)
    if _in_main_thread() and signal.getsignal(signal.SIGINT) is _on_second_signal:
        signal.signal(signal.SIGINT, before.sigint)


os.register_at_fork(after_in_child=_after_fork_in_child)
