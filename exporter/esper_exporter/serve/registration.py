"""Registration: keeps a process' target file as it should be, on a thread of its own.

A shared file system may hang for minutes. Nothing of that may reach whoever emits or scrapes, so
the file is looked after here alone; what it says is asked for once a second.
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
from esper_exporter.serve.interfaces import LandingPage
from esper_exporter.serve.target_file import Identity, Target, prune

logger = logging.getLogger("esper_exporter")

_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_ALL = ("", "0.0.0.0", "::")


class Served(Protocol):
    """A page that is served, or will be."""

    @property
    def port(self) -> int | None:
        """Its TCP port, None while it is not known."""

    @property
    def url(self) -> str | None:
        """Its address on this machine."""

    def serving(self) -> bool:
        """Whether it can be fetched."""

    def landing(self) -> LandingPage:
        """The runs it is about, the newest last."""


class Registration:
    """Writes the target file once there is a page, again when its run changes, and removes it.

    ``directory`` None registers nowhere. Nothing it does raises.
    """

    def __init__(self, directory: Path | None, host: str, page: Served) -> None:
        self._directory = directory
        self._host = host
        self._page = page
        self._files = Files()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register, and keep that up to date; harmless when it is done already."""
        if self._directory is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._ended = threading.Event()
        self._thread = start_daemon(
            partial(self._keep, self._directory, self._ended), "esper-exporter-registration"
        )

    def end(self) -> None:
        """Remove the file; a file system that hangs is not waited for long."""
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
        """What the file should say now, None while there is no page."""
        port, url = self._page.port, self._page.url
        if port is None or url is None or not self._page.serving():
            return None
        address, scheme = page_address(self._host, port), url.partition(":")[0]
        runs = self._page.landing().runs
        if not runs:
            return Target(address, scheme)
        newest = runs[-1]
        return Target(
            address, scheme, newest.run_id, newest.group_id, newest.task or "", str(newest.rank)
        )


def page_address(host: str, port: int) -> str:
    """``HOST:PORT`` by which other machines reach a page that is served on ``host``."""
    reached = socket.gethostname() if host in _ALL else host
    return f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"
