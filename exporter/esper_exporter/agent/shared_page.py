"""SharedPage: the exporter's side of a share; publishes this process's page."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from esper_exporter import __version__
from esper_exporter.agent.layout_log import LayoutWriter
from esper_exporter.agent.owned_file import PageRefused
from esper_exporter.agent.page_file import PageWriter
from esper_exporter.agent.process_identity import (
    WRAPPER_VARIABLE,
    LifeLock,
    ProcessIdentity,
    boot_id,
    pid_namespace,
    start_ticks,
)
from esper_exporter.agent.share_claim import is_served, serving_address
from esper_exporter.agent.share_directory import (
    CLOSED,
    IDENTITY,
    LOCK,
    PAGE,
    SOCKET,
    STATE,
    make_share,
    remove_process,
)
from esper_exporter.daemon_thread import start_daemon
from esper_exporter.metrics.exposition import Capture

logger = logging.getLogger("esper_exporter")

SECONDS_BETWEEN_PUBLICATIONS = 1.0
SECONDS_BETWEEN_STATES = 30.0
"""The browser page's state takes longer to make than a page; a living process is asked for it."""
SECONDS_UNTIL_OPENED_AGAIN = 5.0
"""After a share that could not be written to, a full one perhaps."""
SECONDS_UNTIL_ADDRESS = 3.0
"""How long after its start a process waits for the address of its wrapper, when asked for it."""
LONGEST_SOCKET_PATH = 100
_PAGES: weakref.WeakSet[SharedPage] = weakref.WeakSet()


class SharedPage:
    """Publishes one process' page, each second and at each `publish`.

    ``take`` returns one consistent state of the table. ``rank`` is the process' rank, 0 unless
    known. ``describe`` returns the browser page's state, which is kept for when the process is
    gone. Nothing here raises once it is made: a share that cannot be written to is one warning, and
    the page is served in process as if there were no share. Thread-safe.
    """

    def __init__(
        self,
        share: Path,
        rank: int,
        take: Callable[[], Capture],
        clock: Callable[[], float],
        describe: Callable[[], bytes],
        run_id: str = "",
    ) -> None:
        self._share = share
        self._take = take
        self._clock = clock
        self._describe = describe
        self._run_id = run_id
        self._lock = threading.RLock()
        self._publishing = False
        self._again = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._life: LifeLock | None = None
        self._page: PageWriter | None = None
        self._layout: LayoutWriter | None = None
        self._rank = rank
        self._wrapper = os.environ.get(WRAPPER_VARIABLE, "")[:64]
        self._address_by = time.monotonic() + SECONDS_UNTIL_ADDRESS
        self._failed = False
        self._open_at = math.inf
        self.on_late_opening: Callable[[], None] = lambda: None
        """Called on the publishing thread when a share that could not be opened at the start is."""
        self.directory: Path | None = None
        """The directory of this process in the share, None while there is none."""
        _PAGES.add(self)

    def start(self) -> None:
        """Create this process's directory and publish from now on; idempotent."""
        with self._lock:
            if self._thread is not None:
                return
            self._stop.clear()
            self._open()
            self._thread = start_daemon(self._run, "esper-exporter-share")
        self.publish()

    def _open(self) -> bool:
        """Whether this process publishes to a share; where it cannot, it is tried again later."""
        if self._page is not None:
            return True
        self._open_at = math.inf
        try:
            make_share(self._share)
            ticks = start_ticks(self._pid) or 0
            directory = self._share / f"{self._pid}-{ticks}-{secrets.token_hex(4)}"
            directory.mkdir(mode=0o700)
            self.directory = directory
            self._life = LifeLock(directory / LOCK)
            identity = ProcessIdentity(
                pid=self._pid,
                start_ticks=ticks,
                boot_id=boot_id(),
                pid_namespace=pid_namespace(),
                host=socket.gethostname()[:255],
                uid=os.getuid(),
                started_at=self._clock(),
                exporter_version=__version__,
                rank=self._rank,
                run_id=self._run_id,
                wrapper=self._wrapper,
            )
            (directory / IDENTITY).write_bytes(identity.to_json())
            self._page = PageWriter(directory / PAGE)
            self._layout = LayoutWriter(directory)
        except (OSError, PageRefused) as problem:
            self._drop_files()
            self._discard()
            self._give_up(problem)
            self._open_at = time.monotonic() + SECONDS_UNTIL_OPENED_AGAIN
            return False
        return True

    def _open_late(self) -> None:
        """Open a share that could not be opened before, if it is time to try."""
        with self._lock:
            if self._stop.is_set() or time.monotonic() < self._open_at or not self._open():
                return
            self._failed = False
        logger.info("the page is shared now: %s", self._share)
        self.on_late_opening()

    def _drop_files(self) -> None:
        """Close the files and release the lock, which marks the end."""
        for part in (self._page, self._layout):
            if part is not None:
                part.close()
        if self._life is not None:
            self._life.release()
        self._page = self._layout = self._life = None

    def _give_up(self, problem: Exception) -> None:
        if not self._failed:
            self._failed = True
            logger.warning(
                "the page is not shared: %s: %s; it is served by this process alone",
                self._share,
                problem,
            )

    def socket(self) -> Path | None:
        """Where the agent asks for the browser page's data; None where there is no share, or its
        path is too long for a socket."""
        if self.directory is None or self._failed:
            return None
        path = self.directory / SOCKET
        return path if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH else None

    def agent_serves(self) -> bool:
        """Whether an agent is there to serve this page when this process is gone, or the wrapper
        that started it, which does so where there is none."""
        if self.directory is None or self._failed:
            return False
        return bool(self._wrapper) or is_served(self._share)

    def agent_url(self) -> str | None:
        """The address at which an agent, or the wrapper that started this process, serves its page;
        None while none does.

        A wrapper starts serving beside the process, which waits for it in its first 3 seconds.
        """
        if not self.agent_serves():
            return None
        address = serving_address(self._share)
        if self._wrapper:
            while address is None and time.monotonic() < self._address_by:
                time.sleep(0.02)
                address = serving_address(self._share)
        return address

    def soon(self) -> None:
        """Publish soon, on the publishing thread."""
        self._wake.set()

    def keep(self) -> None:
        """Publish, and keep the browser page's state. Never raises."""
        self.publish()
        directory = self.directory
        if directory is None or os.getpid() != self._pid:
            return
        beside = directory / f".{STATE}.{threading.get_ident()}"
        try:
            beside.write_bytes(self._describe())
            beside.replace(directory / STATE)
        except OSError as problem:
            self._give_up(problem)
        except Exception:
            logger.debug("the browser page's state could not be kept", exc_info=True)

    def publish(self) -> None:
        """Publish the current page before returning. Never raises.

        A signal handler that reports a fault may interrupt a publication on its own thread; that
        publication is then repeated before it returns.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._again = True
            if self._publishing:
                return
            self._publishing = True
            try:
                while self._again:
                    self._again = False
                    self._publish()
            finally:
                self._publishing = False

    def _publish(self) -> None:
        page, layout = self._page, self._layout
        if page is None or layout is None:
            return
        try:
            state = self._take()
            layout.record(state)
            page.publish(state.values, self._clock(), layout.generation, layout.size)
            layout.forget_older()
            self._failed = False
        except OSError as problem:
            self._give_up(problem)
        except Exception:
            if not self._failed:
                self._failed = True
                logger.exception("sharing the page failed; the training continues")

    def _run(self) -> None:
        kept_at = time.monotonic()
        while not self._stop.is_set():
            self._wake.wait(SECONDS_BETWEEN_PUBLICATIONS)
            self._wake.clear()
            if self._stop.is_set():
                return
            if self._page is None:
                self._open_late()
            if time.monotonic() - kept_at > SECONDS_BETWEEN_STATES:
                self.keep()
                kept_at = time.monotonic()
            else:
                self.publish()

    def close(self) -> None:
        """Publish for the last time and release the lock, which marks the end. Without an agent the
        page is removed with the process."""
        if os.getpid() != self._pid:
            return
        self._stop.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(SECONDS_BETWEEN_PUBLICATIONS * 5)
        self.publish()
        with self._lock:
            served = self.agent_serves()
            if served and self.directory is not None:
                with suppress(OSError):
                    (self.directory / CLOSED).touch(mode=0o600)
            self._drop_files()
        if not served:
            self._discard()

    def _discard(self) -> None:
        """Remove the page from the share: this process has served its end itself."""
        directory, self.directory = self.directory, None
        if directory is not None:
            try:
                remove_process(directory)
            except OSError as problem:
                logger.warning("%s could not be removed: %s", directory, problem.strerror)

    def _after_fork_in_child(self) -> None:
        """Drop the parent's lock and files in a forked child."""
        self._lock = threading.RLock()
        self._thread = None
        # A child that starts an exporter shares its page, not its parent's.
        self._pid, self.directory = os.getpid(), None
        self._open_at = math.inf
        self._drop_files()


def _after_fork_in_child() -> None:
    for page in list(_PAGES):
        page._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
