"""Clients of a served page: a plain one, one that speaks bytes, and curl."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from support.programs import program


@dataclass(frozen=True)
class Reply:
    """A response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = 10.0
) -> Reply:
    """One request on a separate connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path or "/", headers=dict(headers or {}))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, fields, answer.read())
    finally:
        connection.close()


def connect(port: int, timeout: float = 10.0, source: str = "127.0.0.1") -> socket.socket:
    """A connection that nothing has been sent on."""
    return socket.create_connection(("127.0.0.1", port), timeout, (source, 0))


def read_to_end(sock: socket.socket) -> bytes:
    """What comes until the server closes; a reset ends it as well."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_until(sock: socket.socket, expected: bytes) -> bytes:
    """What comes up to and with ``expected``; fails when the connection ends before."""
    read = b""
    while expected not in read:
        part = sock.recv(65536)
        assert part, f"the connection ended after {read!r}"
        read += part
    return read


def closed_within(sock: socket.socket, seconds: float) -> bool:
    """Whether the server ends the connection in time."""
    sock.settimeout(seconds)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def curl(*arguments: str) -> Reply:
    """curl's view; status 0 where it got no answer (the body is then what it says)."""
    done = subprocess.run(
        [program("curl"), "-sS", "-i", "--max-time", "10", *arguments],
        capture_output=True,
        timeout=20,
        check=False,
    )
    if done.returncode:
        return Reply(0, {}, done.stderr)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (li.partition(":") for li in lines)}
    return Reply(int(first.split()[1]), fields, body)


def seconds_to_scrape(url: str) -> float:
    """How long a legitimate scrape takes, the best of five: a busy machine delays one of them, a
    server that is held up all. Each must succeed."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        assert request(f"{url}/metrics", timeout=10.0 * patience()).status == 200
        best = min(best, time.perf_counter() - started)
        if best < 1:
            break
    return best


def patience() -> float:
    """How many times longer than on a quiet machine something may take now."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
