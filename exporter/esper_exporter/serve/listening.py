"""Sockets to listen on, and who holds the address when it is taken."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 512


class ListenError(OSError):
    """The server cannot listen on an address; the message says which and why."""


class PortTaken(ListenError):
    """The address is in use; the message names the holder where the system shows it."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address, and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def listen(self) -> socket.socket:
        """A listening socket, not inherited by programs that are started.

        A name with several addresses listens on the first IPv4 one, else on the first. ``::``
        takes IPv4 as well. Raises PortTaken or ListenError.
        """
        try:
            found = socket.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {self}: {error}") from error
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(address)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(error.errno, f"{self} is in use") from error
            raise ListenError(
                error.errno, f"cannot listen on {self}: {error.strerror or error}"
            ) from error
        return sock


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path of a unix socket, open to its owner and group (mode 0660)."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def listen(self) -> socket.socket:
        """A listening socket. One that nobody listens on any more is replaced, anything else at
        the path is left alone. Raises PortTaken or ListenError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = str(self.path)
        try:
            self._remove_stale(path)
            sock.bind(path)
            # Before listen() nobody can connect, so the mode is never wider than this.
            os.chmod(path, 0o660)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except PortTaken:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(error.errno, f"{self} is in use") from error
            raise ListenError(
                error.errno, f"cannot listen on {self}: {error.strerror or error}"
            ) from error
        return sock

    def _remove_stale(self, path: str) -> None:
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise PortTaken(errno.EADDRINUSE, f"{self} exists and is not a socket")
        except FileNotFoundError:
            return
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.settimeout(0.5)
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise PortTaken(errno.EADDRINUSE, f"{self} is in use") from error
        else:
            raise PortTaken(errno.EADDRINUSE, f"{self} is in use")
        finally:
            probe.close()


Address = TcpAddress | UnixAddress


def holder(port: int) -> str:
    """Who listens on a TCP port of this machine, in words; takes up to a second.

    Without the rights to look into other users' processes the holder stays unknown.
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
        # The program and its script only: further arguments may hold what no log should.
        command = shlex.join(psutil.Process(pid).cmdline()[:2])[:120]
    except psutil.Error:
        command = ""
    return f"pid {pid} ({command})" if command else f"pid {pid}"


def taken_message(address: Address) -> str:
    """What to tell the user about an address that is in use."""
    if isinstance(address, UnixAddress):
        return f"{address} is in use by another process; choose another unix socket path"
    return f"port {address.port} on {address.host or '*'} is taken by {holder(address.port)}; " \
        "choose another port, or port 0 for any free one"  # fmt: skip
