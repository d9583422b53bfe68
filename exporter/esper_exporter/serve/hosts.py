"""The ``Host`` values that a request may have: the guard against DNS rebinding.

A web page can make its host name resolve to this machine's address and then read the answers that
the user's browser gets from here, past firewalls and even from the loopback. Such a request names
the page's host. So the server answers a request only when it names

- the loopback: ``localhost``, a name below it, ``127.0.0.0/8`` or ``::1``;
- the host that the server listens on, or that host's address;
- a configured name: exact, ``.example.org`` for all names below it, or ``*`` for any;
- unless the server listens on the loopback alone: this machine's host name, short or full;
- when the server listens on all addresses: any IP address. A browser with an IP address talks to
  that address only, so it cannot be rebound; and behind a container's published port, Prometheus
  uses an address that this machine does not have.

Requests without ``Host`` (HTTP/1.0) and over a unix socket do not come from browsers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable

from esper_exporter.serve.workers import Workers

_LOOPBACK_NAME = "localhost"
_ALL = frozenset({"", "0.0.0.0", "::"})
_RESOLVER_SECONDS = 5.0
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def host_name(header: bytes) -> str | None:
    """The host in a ``Host`` header, in lower case, without port, brackets or trailing dot; None
    where it is not a valid host."""
    text = header.decode("latin-1").strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or not (port == "" or (port[0] == ":" and _is_port(port[1:]))):
            return None
        return name if ":" in name and ip_address(name) is not None else None
    name, colon, port = text.partition(":")
    if colon and not _is_port(port):
        return None
    return name.removesuffix(".") or None


def _is_port(text: str) -> bool:
    return text == "" or (text.isascii() and text.isdigit() and len(text) <= 5)


def ip_address(text: str) -> Ip | None:
    """Parse an address as written in a URL; an IPv4-mapped IPv6 address becomes the IPv4 one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class AllowedHosts:
    """Checks requests to one server; used on the event loop's thread.

    ``bound`` is the host that the server listens on, ``configured`` are further names. The first
    request that needs the machine's full name resolves it, on a worker thread.
    """

    def __init__(
        self,
        bound: str,
        configured: Iterable[str],
        workers: Workers,
        full_name: Callable[[], str] = socket.getfqdn,
    ) -> None:
        self._workers = workers
        self._full_name = full_name
        self._machine: asyncio.Future[frozenset[str]] | None = None
        bound = bound.strip().lower()
        address = ip_address(bound)
        names = {name.strip().lower().removesuffix(".") for name in configured}
        self._any = "*" in names
        self._below = tuple(name for name in names if name.startswith("."))
        self._names = names | {_LOOPBACK_NAME, bound}
        self._addresses = {found for name in self._names if (found := ip_address(name.strip("[]")))}
        self._all_addresses = bound in _ALL
        self._loopback_only = bound == _LOOPBACK_NAME or (
            address is not None and address.is_loopback
        )

    async def allow(self, header: bytes | None, local_address: str) -> bool:
        """Whether to answer a request with this ``Host`` header. ``local_address`` is the server's
        address on the connection."""
        if header is None or self._any:
            return True
        name = host_name(header)
        if name is None:
            return False
        address = ip_address(name)
        if address is not None:
            return (
                self._all_addresses
                or address.is_loopback
                or address in self._addresses
                or address == ip_address(local_address)
            )
        if name in self._names or name.endswith((*self._below, f".{_LOOPBACK_NAME}")):
            return True
        return not self._loopback_only and name in await self._machine_names()

    async def _machine_names(self) -> frozenset[str]:
        if self._machine is None or self._machine.cancelled():
            self._machine = self._workers.submit(self._ask_machine)
        try:
            return await asyncio.wait_for(asyncio.shield(self._machine), _RESOLVER_SECONDS)
        except (TimeoutError, OSError, UnicodeError):
            return frozenset({socket.gethostname().lower()})

    def _ask_machine(self) -> frozenset[str]:
        names = (socket.gethostname(), self._full_name())
        return frozenset(name.lower().removesuffix(".") for name in names)
