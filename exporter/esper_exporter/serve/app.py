"""The ASGI application: which path gives which answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Protocol

from esper_exporter.serve.connection import STATE_KEY, Client
from esper_exporter.serve.interfaces import PageSource, Served
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.messages import Answer, Fields, Headers, Request, plain
from esper_exporter.serve.negotiation import accepts_gzip, negotiate
from esper_exporter.serve.rendering import Outflow, Rendering, ScrapeTimeout
from esper_exporter.serve.routes import METRICS_PATH, NOT_FOUND, routes
from esper_exporter.serve.trouble import Trouble
from esper_exporter.serve.workers import Workers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Gate(Protocol):
    """Who may come in, and which headers every answer carries; see the web configuration."""

    async def refusal(self, headers: Headers, address: str) -> Answer | None:
        """The answer for a request that may not pass, None for one that may."""

    def fields(self) -> Fields:
        """Header fields for every answer."""


_NOT_ALLOWED = plain(405, "Only GET and HEAD are answered here.", (b"allow", b"GET, HEAD"))
_FAILED = plain(500, "The page could not be made; the exporter's log says why.")
_TIMED_OUT = plain(503, "The page was not ready within the scrape timeout.", (b"retry-after", b"5"))

_DEFAULT_FIELDS: Fields = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


class MetricsApp:
    """Answers GET and HEAD for ``/metrics`` and the paths of `routes`."""

    def __init__(
        self,
        source: PageSource,
        rendering: Rendering,
        workers: Workers,
        outflow: Outflow,
        limits: Limits,
        trouble: Trouble,
        gate: Gate | None,
    ) -> None:
        self._source = source
        self._routes = routes(source)
        self._workers = workers
        self._rendering = rendering
        self._outflow = outflow
        self._limits = limits
        self._trouble = trouble
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before accepting: Hypercorn answers 403
        if scope["type"] != "http":
            return
        headers = _headers(scope["headers"])
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            await self._respond(scope, headers, send)
            return
        # Hypercorn holds what comes in a short queue, and waits for room in it even to end.
        discarding = asyncio.create_task(_discard(receive))
        try:
            await self._respond(scope, headers, send)
        finally:
            discarding.cancel()

    async def _respond(self, scope: Scope, headers: Headers, send: Send) -> None:
        asked_at = time.monotonic()
        client: Client = scope["state"][STATE_KEY]
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            headers,
            client.address,
        )
        try:
            answer = (await self._answer(request)).for_client(headers)
        except ScrapeTimeout:
            answer = _TIMED_OUT
        except Exception as error:
            self._trouble.report("page", error)
            answer = _FAILED
        self._outflow.add(answer.body)
        try:
            sent = await self._send(answer, request.method, client, send)
        finally:
            self._outflow.remove(answer.body)
        if answer.format is not None and request.method == "GET":
            self._report(
                Served(
                    address=client.address,
                    user_agent=request.user_agent,
                    asked_at=asked_at,
                    seconds=time.monotonic() - asked_at,
                    size=len(answer.body),
                    format=answer.format,
                    timeout=None,
                    complete=sent,
                )
            )

    def _report(self, page: Served) -> None:
        """Hand the record to the source on a worker."""

        def report() -> None:
            try:
                self._source.served(page)
            except Exception as error:
                self._trouble.report("served", error)

        self._workers.submit(report)

    async def _answer(self, request: Request) -> Answer:
        if self._gate is not None:
            refusal = await self._gate.refusal(request.headers, request.address)
            if refusal is not None:
                return refusal
        if request.method not in {"GET", "HEAD"}:
            return _NOT_ALLOWED
        if request.path == METRICS_PATH:
            return await self._metrics(request.headers)
        route = self._routes.get(request.path, NOT_FOUND)
        if isinstance(route, Answer):
            return route
        work = self._workers.submit(partial(route, request))
        try:
            return await asyncio.wait_for(work, self._limits.scrape_seconds)
        except TimeoutError:
            raise ScrapeTimeout from None

    async def _metrics(self, headers: Headers) -> Answer:
        media = negotiate(headers.get(b"accept"))
        gzip = accepts_gzip(headers.get(b"accept-encoding"))
        seconds = scrape_seconds(headers.get(b"x-prometheus-scrape-timeout-seconds"), self._limits)
        started = time.perf_counter()
        await self._outflow.room(seconds)
        left = seconds - (time.perf_counter() - started)
        page = await self._rendering.page(media, gzip, left)
        fields: Fields = (
            (b"content-type", media.content_type.encode()),
            (b"vary", b"Accept, Accept-Encoding"),
        )
        if gzip:
            fields += ((b"content-encoding", b"gzip"),)
        return Answer(200, page, fields, media.format)

    async def _send(self, answer: Answer, method: str, client: Client, send: Send) -> bool:
        """Whether the whole body of a GET was handed to the connection."""
        fields = {**dict(_DEFAULT_FIELDS), **dict(answer.fields)}
        if self._gate is not None:
            fields.update(self._gate.fields())
        fields[b"content-length"] = str(len(answer.body)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": list(fields.items()),
            }
        )
        if method == "HEAD":
            await send({"type": "http.response.body"})
            return False
        step = self._limits.body_chunk_bytes
        for start in range(0, max(1, len(answer.body)), step):
            chunk = answer.body[start : start + step]
            more = start + step < len(answer.body)
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
            if client.lost:
                return False
        return True


async def _discard(receive: Receive) -> None:
    """Take a request's body from the connection and drop it."""
    while (await receive())["type"] != "http.disconnect":
        continue


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header fields by lower-case name; those that come twice are joined by commas."""
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        key = name.lower()
        headers[key] = headers[key] + b", " + value if key in headers else value
    return headers


def scrape_seconds(header: bytes | None, limits: Limits) -> float:
    """How long a page may take: the scraper's own timeout less a tenth for the way back.

    An absent or unreadable header means the default; a value beyond reason is cut.
    """
    try:
        seconds = float(header) if header is not None else limits.scrape_seconds
    except ValueError:
        seconds = limits.scrape_seconds
    if not 0 < seconds < float("inf"):
        seconds = limits.scrape_seconds
    seconds = min(seconds, limits.longest_scrape_seconds)
    return seconds - min(0.5, seconds * 0.1)
