"""A request as the routes see it, and an answer held in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    import h11

Headers = Mapping[bytes, bytes]
"""Header fields by lower-case name."""
Fields = tuple[tuple[bytes, bytes], ...]

PLAIN = b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request without its body, which no route reads."""

    method: str
    path: str
    """Decoded, without the query."""
    query: str
    """The raw query string; empty without one."""
    headers: Headers
    address: str
    """The client's IP address, ``unix`` for a unix socket."""
    local_address: str
    """The server's own IP address on this connection, ``unix`` for a unix socket."""
    asked_at: float
    """When the server had read it (``time.monotonic()``)."""
    connection: int = 0
    """Number of the connection, unique in this process."""

    @property
    def user_agent(self) -> str:
        """The ``User-Agent`` header, cut to 256 characters; empty without one."""
        return self.headers.get(b"user-agent", b"").decode("latin-1")[:256]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    ``fields`` replace default header fields of the same name. ``etag`` (with its quotes) lets a
    client cache the answer: the same tag in ``If-None-Match`` gets a 304.
    """

    status: int
    body: bytes
    fields: Fields = ((b"content-type", PLAIN),)
    format: str | None = None
    """The exposition format when this is a page of metrics, else None."""
    etag: bytes | None = None

    def for_client(self, headers: Headers) -> Answer:
        """This answer, or a 304 without a body where the client has it cached."""
        if self.etag is None or self.status != 200:
            return self
        fields = (*self.fields, (b"etag", self.etag))
        known = {tag.strip().removeprefix(b"W/") for tag in _listed(headers.get(b"if-none-match"))}
        if self.etag.removeprefix(b"W/") in known or b"*" in known:
            return Answer(304, b"", fields)
        return Answer(self.status, self.body, fields, self.format)


@dataclass(frozen=True, slots=True)
class SharedRoute:
    """A route whose answer many clients share.

    ``at_once`` returns the answer where another client has just had it, else None. It never waits,
    so the server calls it on the event loop and saves the way to a worker thread.
    """

    make: Callable[[Request], Answer]
    at_once: Callable[[Request], Answer | None]

    def __call__(self, request: Request) -> Answer:
        return self.make(request)


Route = Answer | Callable[[Request], Answer]
"""A fixed answer, or a function that makes one (a `SharedRoute` too)."""


def plain(status: int, text: str, *fields: tuple[bytes, bytes]) -> Answer:
    """A one-line text answer."""
    return Answer(status, text.encode() + b"\n", ((b"content-type", PLAIN), *fields))


def _listed(header: bytes | None) -> list[bytes]:
    return [] if header is None else header.split(b",")


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
