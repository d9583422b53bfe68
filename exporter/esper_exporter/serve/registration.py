"""Registration: keeps a process's target file up to date, on a separate thread.

A shared file system may hang for minutes. That must not delay the trainer or a scrape, so only
this thread touches the file; it checks the content once a second.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from esper_exporter.atomic_file import Files
from esper_exporter.daemon_thread import start_daemon
from esper_exporter.serve.run_summary import RunSummary
from esper_exporter.serve.target_file import Identity, Target, prune

logger = logging.getLogger("esper_exporter")

_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_ALL = ("", "0.0.0.0", "::")


class Served(Protocol):
    """A page that the server serves, or will serve."""

    @property
    def port(self) -> int | None:
        """Its TCP port, None while unknown."""

    @property
    def url(self) -> str | None:
        """Its address on this machine."""

    def serving(self) -> bool:
        """Whether clients can fetch it."""

    def summaries(self) -> tuple[RunSummary, ...]:
        """The runs on it, the newest last."""


class Registration:
    """Writes the target file when the page is up, rewrites it when its run changes, removes it.

    ``directory`` None disables registration. No method raises.
    """

    def __init__(self, directory: Path | None, host: str, page: Served) -> None:
        self._directory = directory
        self._host = host
        self._page = page
        self._files = Files()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register, and keep the file up to date; idempotent."""
        if self._directory is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._ended = threading.Event()
        self._thread = start_daemon(
            partial(self._keep, self._directory, self._ended), "esper-exporter-registration"
        )

    def end(self) -> None:
        """Remove the file, without waiting long for a file system that hangs."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join(_PATIENCE_SECONDS)
            self._thread = None

    def _keep(self, directory: Path, ended: threading.Event) -> None:
        try:
            with suppress(FileNotFoundError):
                prune(directory, self._files)
        except OSError as problem:
            logger.warning("files of ended processes stay in %s: %s", directory, problem.strerror)
        identity = Identity.own()
        path = directory / identity.filename
        written: Target | None = None
        while not ended.is_set():
            target = self._target()
            if (
                target is not None
                and target != written
                and self._files.write(path, target.document(identity))
            ):
                written = target
            ended.wait(_EVERY_SECONDS)
        if written is not None:
            with suppress(OSError):
                path.unlink()

    def _target(self) -> Target | None:
        """The file's current content, None while there is no page."""
        port, url = self._page.port, self._page.url
        if port is None or url is None or not self._page.serving():
            return None
        address, scheme = page_address(self._host, port), url.partition(":")[0]
        runs = self._page.summaries()
        if not runs:
            return Target(address, scheme)
        newest = runs[-1]
        return Target(
            address, scheme, newest.run_id, newest.group_id, newest.task, str(newest.rank)
        )


def page_address(host: str, port: int) -> str:
    """``HOST:PORT`` at which other machines reach a page served on ``host``."""
    reached = socket.gethostname() if host in _ALL else host
    return f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"
