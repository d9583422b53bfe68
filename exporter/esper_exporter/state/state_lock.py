"""StateLock: one thread at a time changes the state, and no thread can wait for itself.

Python runs finalisers and signal handlers between any two instructions, so also on the thread that
is changing the state. Work that such code asks for is queued; the thread that holds the state does
it as soon as its own change is complete. No reader sees half a change, and nothing is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

WAIT_SECONDS = 0.25
"""How long work waits for another thread. After that the other thread does it as well."""

FORK_WAIT_SECONDS = 0.5


class StateLock:
    """Guards one exporter's state.

    ``on_error`` is called, with the state held, when queued work raises.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error
        # Reentrant, because a signal handler may run between taking it and noting the holder.
        self._lock = threading.RLock()
        self._holder: int | None = None
        self._queue: deque[Callable[[], object]] = deque()
        self._forking: set[int] = set()

    @property
    def held_here(self) -> bool:
        """Whether the calling thread is inside."""
        return self._holder == get_ident()

    @property
    def taken(self) -> bool:
        """Whether any thread is inside."""
        return self._holder is not None

    def submit(self, work: Callable[[], object], wait: float = WAIT_SECONDS) -> None:
        """Do ``work`` with the state held, in the order of submission.

        It is done when this returns, except where this thread is inside already, or another
        thread stays inside longer than ``wait`` seconds: then the thread that is inside does it.
        """
        queue, me = self._queue, get_ident()
        queue.append(work)
        if self._holder != me:
            self._work_off(queue, me, wait)

    def do_now(self, work: Callable[[A, B], object], one: A, other: B) -> bool:
        """Do ``work(one, other)`` with the state held, if it is free and no work is queued;
        whether it was done. As `submit`, without a queue on the way."""
        if self._holder is not None or self._queue or not self._lock.acquire(False):
            return False
        me = get_ident()
        try:
            self._holder = me
            try:
                work(one, other)
            except Exception:
                self._on_error()
        finally:
            # There is no call between these two, so no signal handler can raise there.
            if self._holder == me:
                self._holder = None
                self._lock.release()
        if self._queue:
            self._work_off(self._queue, me, 0.0)
        return True

    def read(self, get: Callable[[], T], otherwise: Callable[[], T], wait: float) -> T:
        """What ``get`` returns with the state held and no work pending.

        Where the state is not free within ``wait`` seconds, or this thread is inside
        already, it is what ``otherwise`` returns.
        """
        me, lock = get_ident(), self._lock
        if self._holder == me:
            return otherwise()
        try:
            if not lock.acquire(blocking=False) and not (wait and lock.acquire(timeout=wait)):
                return otherwise()
            self._holder = me
            self._do_queued()
            return get()
        finally:
            if self._holder == me:
                self._holder = None
                lock.release()
            if self._queue:
                self._work_off(self._queue, me, 0.0)

    def _work_off(self, queue: deque[Callable[[], object]], me: int, wait: float) -> None:
        lock = self._lock
        # Once more after each release: what was queued in between found the state taken.
        while queue:
            try:
                if not lock.acquire(False) and not (wait and lock.acquire(timeout=wait)):
                    return
                self._holder = me
                while queue:
                    work = queue.popleft()  # only the holder takes from it
                    try:
                        work()
                    except Exception:
                        self._on_error()
            finally:
                # There is no call between these two, so no signal handler can raise there.
                if self._holder == me:
                    self._holder = None
                    lock.release()

    def _do_queued(self) -> None:
        queue = self._queue
        while queue:
            work = queue.popleft()  # only the holder takes from it
            try:
                work()
            except Exception:
                self._on_error()

    # -- forks -------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until no change is under way, so that the child inherits a whole state."""
        if self._lock.acquire(timeout=FORK_WAIT_SECONDS):
            self._forking.add(get_ident())

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if get_ident() in self._forking:
            self._forking.discard(get_ident())
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """The threads that might hold the lock are not in the child: begin with a new one."""
        self._lock = threading.RLock()
        self._holder = None
        self._forking.clear()
        self._queue.clear()
