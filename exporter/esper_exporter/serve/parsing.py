"""Convert h11's request to a `Request`: path, query, and header fields by name."""

from __future__ import annotations

import time
from urllib.parse import unquote

import h11

from esper_exporter.serve.messages import Request


def request_of(event: h11.Request, address: str, local_address: str, connection: int) -> Request:
    """The request just read; repeated header fields are joined by commas."""
    headers: dict[bytes, bytes] = {}
    for name, value in event.headers:
        headers[name] = headers[name] + b", " + value if name in headers else value
    target = event.target
    if not target.startswith(b"/"):
        target = _origin_form(target, headers)
    path, _, query = target.partition(b"?")
    return Request(
        event.method.decode("ascii"),
        unquote(path.decode("latin-1")),
        query.decode("latin-1"),
        headers,
        address,
        local_address,
        time.monotonic(),
        connection,
    )


def _origin_form(target: bytes, headers: dict[bytes, bytes]) -> bytes:
    """The path of an absolute target; its authority replaces ``Host``
    (RFC 9112 §3.2.2)."""
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        return target
    authority, slash, path = rest.partition(b"/")
    headers[b"host"] = authority
    return slash + path or b"/"
