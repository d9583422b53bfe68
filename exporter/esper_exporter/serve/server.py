"""MetricsServer: starts and stops the server's thread, and detaches forked children from it."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.log_once import ErrorLog
from esper_exporter.serve.interfaces import PageSource
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.listening import Address, Listener, ListenError, TcpAddress, UnixAddress

if TYPE_CHECKING:
    from esper_exporter.serve.runtime import Runtime, Security
    from esper_exporter.serve.security import WatchedConfig
    from esper_exporter.serve.workers import Workers

LOG = logging.getLogger("esper_exporter.serve")

_FORK_GUARD = threading.RLock()
"""Held while sockets open and close, and across a fork, so that a child knows every socket that
it inherits."""

_SERVERS: weakref.WeakSet[MetricsServer] = weakref.WeakSet()
_ABANDONED: list[object] = []
"""A forked child's copies of its parent's server objects. Never freed, because finalizing them
would act on resources that the child shares with its parent."""


class MetricsServer:
    """Serves the pages of a PageSource over HTTP, from one daemon thread.

    ``host`` is a name or an IPv4 or IPv6 address (with or without brackets), ``""`` means all;
    ``port`` 0 takes a free one, None serves no TCP at all. ``unix_socket`` is the path of a unix
    socket, served as well (mode 0660). ``web_config`` is the path of a Prometheus web
    configuration file (TLS, passwords, headers); it holds for every address. ``allowed_hosts`` are
    names that a request's ``Host`` may have beside those of `serve.hosts`. With ``strict`` a
    port in use is an error, without it a warning and a retry in the background. The server calls
    ``on_error`` with a fixed word for every internal error.

    All methods may be called from any thread.
    """

    def __init__(
        self,
        source: PageSource,
        *,
        host: str,
        port: int | None,
        unix_socket: str | os.PathLike[str] | None = None,
        web_config: str | os.PathLike[str] | None = None,
        allowed_hosts: Iterable[str] = (),
        strict: bool = False,
        limits: Limits | None = None,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        if port is not None and not 0 <= port <= 65535:
            raise ValueError(f"port must lie between 0 and 65535, not {port}")
        if port is None and unix_socket is None:
            raise ValueError("nothing to listen on: give a port or a unix socket")
        self._source = source
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._unix_socket = None if unix_socket is None else Path(unix_socket)
        self._web_config = None if web_config is None else Path(web_config)
        self._allowed_hosts = tuple(allowed_hosts)
        self._strict = strict
        self._limits = limits or Limits()
        self._errors = ErrorLog(on_error, LOG)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._runtime: Runtime | None = None
        self._watched: WatchedConfig | None = None
        _SERVERS.add(self)

    def start(self) -> None:
        """Listen and serve; idempotent.

        Raises PortTaken or ListenError with ``strict``, WebConfigError for a bad web
        configuration (strict or not: the server never falls back to plain text).
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            from esper_exporter.serve.runtime import Runtime

            security = self._read_web_config()
            listeners: list[Listener] = []
            pending: dict[Address, ListenError] = {}
            for address in self._addresses():
                try:
                    place = address.resolve()
                    with _FORK_GUARD:
                        listeners.append(place.listen())
                except ListenError as error:
                    if self._strict:
                        for listener in listeners:
                            listener.close()
                        raise address.explained(error) from error
                    pending[address] = error
            with _FORK_GUARD:
                self._runtime = Runtime(
                    self._source,
                    listeners,
                    pending,
                    security,
                    self._limits,
                    self._errors,
                    (self._host, self._allowed_hosts),
                    _FORK_GUARD,
                )
            self._thread = start_daemon(self._runtime.run, "esper-exporter-server")
            self._runtime.started.wait(self._limits.close_seconds)

    def close(self) -> None:
        """Finish the answers in progress, then stop, within about a second; idempotent."""
        with self._lock:
            if self._runtime is None or self._thread is None:
                return
            self._runtime.stop()
            if self._thread is not threading.current_thread():
                self._thread.join(self._limits.close_seconds * 1.5)
            self._runtime = None
            self._thread = None

    @property
    def listening(self) -> bool:
        """Whether the server listens on at least one address."""
        return bool(self._listeners())

    @property
    def port(self) -> int | None:
        """The TCP port; None without TCP, and while another process holds the port."""
        for listener in self._listeners():
            if listener.port is not None:
                return listener.port
        return None

    @property
    def url(self) -> str | None:
        """The URL for a browser on this machine, without a trailing slash.

        ``unix:PATH`` without TCP; None while the server does not listen: a port in use leads to
        another process's page.
        """
        if self._port is None:
            return f"unix:{self._unix_socket}" if self.listening else None
        port = self.port
        if port is None:
            return None
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        secure = self._watched is not None and self._watched.in_force.context is not None
        scheme = "https" if secure else "http"
        return f"{scheme}://{TcpAddress(host, port)}"

    def _addresses(self) -> list[Address]:
        addresses: list[Address] = []
        if self._port is not None:
            addresses.append(TcpAddress(self._host, self._port))
        if self._unix_socket is not None:
            addresses.append(UnixAddress(self._unix_socket))
        return addresses

    def _listeners(self) -> list[Listener]:
        runtime = self._runtime
        return [] if runtime is None else list(runtime.listeners)

    def _read_web_config(self) -> Callable[[Workers], Security] | None:
        self._watched = None
        if self._web_config is None:
            return None
        from esper_exporter.serve.security import WatchedConfig, WebSecurity

        watched = self._watched = WatchedConfig(self._web_config)
        return lambda workers: WebSecurity(watched, workers)

    def _after_fork_in_child(self) -> None:
        """Return to the state before start(); the server stays with the parent."""
        self._lock = threading.RLock()
        if self._runtime is not None:
            self._runtime.abandon()
            _ABANDONED.append((self._runtime, self._thread))
        self._runtime = None
        self._thread = None


def _after_fork_in_child() -> None:
    for server in list(_SERVERS):
        server._after_fork_in_child()
    _FORK_GUARD.release()


os.register_at_fork(
    before=_FORK_GUARD.acquire,
    after_in_parent=_FORK_GUARD.release,
    after_in_child=_after_fork_in_child,
)
