"""Listening sockets, and which process holds an address that is in use."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BACKLOG = 512


class ListenError(OSError):
    """The server cannot listen on an address; the message says which and why."""


class PortTaken(ListenError):
    """The address is in use; the message names the process that holds it, where known."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address, and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def resolve(self) -> Place:
        """Resolve the address; may query a name server.

        Of several addresses it takes the first IPv4 one, else the first. Raises ListenError.
        """
        try:
            found = socket.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {self}: {error}") from error
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        family, _, _, _, place = found[0]
        return Place(self, family, place)

    def explained(self, error: ListenError) -> ListenError:
        """The same error, naming the process that holds the port; may take a second."""
        if not isinstance(error, PortTaken):
            return error
        return PortTaken(
            errno.EADDRINUSE,
            f"port {self.port} on {self.host or '*'} is taken by {holder(self.port)}; "
            "choose another port, or port 0 for any free one",
        )


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path of a unix socket, open to its owner and group (mode 0660)."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def resolve(self) -> Place:
        return Place(self, socket.AF_UNIX, str(self.path))

    def explained(self, error: ListenError) -> ListenError:
        return error


Address = TcpAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it was opened for."""

    address: Address
    sock: socket.socket
    inode: int | None
    """Of a unix socket's path, so that closing removes only this socket."""

    @property
    def port(self) -> int | None:
        """The TCP port, also where port 0 was requested; None for a unix socket."""
        return self.sock.getsockname()[1] if isinstance(self.address, TcpAddress) else None

    def close(self) -> None:
        self.sock.close()
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                if os.stat(self.address.path).st_ino == self.inode:
                    os.unlink(self.address.path)


@dataclass(frozen=True, slots=True)
class Place:
    """A resolved address, ready to listen on."""

    address: Address
    family: socket.AddressFamily
    where: Any

    def listen(self) -> Listener:
        """Open a non-blocking listening socket that child programs do not inherit.

        ``::`` accepts IPv4 as well. A stale unix socket is replaced; anything else at its path is
        left alone. Raises PortTaken or ListenError.
        """
        try:
            sock = socket.socket(self.family, socket.SOCK_STREAM)
        except OSError as error:
            raise ListenError(f"cannot listen on {self.address}: {error}") from error
        inode = None
        try:
            if self.family == socket.AF_UNIX:
                _remove_stale(self.where)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(self.where)
            if self.family == socket.AF_UNIX:
                # Before listen() no client can connect, so the mode is never wider than this.
                os.chmod(self.where, 0o660)
                inode = os.stat(self.where).st_ino
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(errno.EADDRINUSE, f"{self.address} is in use") from error
            raise ListenError(f"cannot listen on {self.address}: {error}") from error
        return Listener(self.address, sock, inode)


def _remove_stale(path: str) -> None:
    """Remove a stale socket. Raises OSError (EADDRINUSE) for anything in use."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
            except TimeoutError:
                pass  # a process listens and does not answer
    raise OSError(errno.EADDRINUSE, "in use")


def holder(port: int) -> str:
    """Describe the process that listens on a TCP port of this machine; takes up to a second.

    Without permission to inspect other users' processes the holder stays unknown.
    """
    import psutil

    try:
        pids = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
        }
    except (psutil.Error, OSError):
        pids = set()
    named = [_process(pid) for pid in sorted(pid for pid in pids if pid is not None)]
    if named:
        return " and ".join(named)
    if pids:
        return "a process that this user may not see"
    return "an unknown process"


def _process(pid: int) -> str:
    import psutil

    if pid == os.getpid():
        return f"this process itself (pid {pid})"
    try:
        # The program and its script only: further arguments may contain secrets.
        command = shlex.join(psutil.Process(pid).cmdline()[:2])[:120]
    except psutil.Error:
        command = ""
    return f"pid {pid} ({command})" if command else f"pid {pid}"
