"""Answer requests: check access, pick the page, follow the delivery of a page of metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from esper_exporter.log_once import ErrorLog
from esper_exporter.serve.delivery import Follow
from esper_exporter.serve.hosts import AllowedHosts
from esper_exporter.serve.interfaces import PageSource, Served, Visit
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.messages import Answer, Fields, Headers, Request, SharedRoute, plain
from esper_exporter.serve.negotiation import accepts_gzip, negotiate
from esper_exporter.serve.rendering import Rendering, ResponseBudget, ScrapeTimeout
from esper_exporter.serve.routes import METRICS_PATH, NOT_FOUND, POSTED, routes
from esper_exporter.serve.workers import Workers

LOG = logging.getLogger("esper_exporter.serve")


class AccessControl(Protocol):
    """Decides which requests may pass, and adds headers to every answer (web configuration)."""

    async def refusal(self, headers: Headers, address: str) -> Answer | None:
        """The answer for a request that may not pass, None for one that may."""

    def fields(self) -> Fields:
        """Header fields for every answer."""


_FOREIGN_HOST = plain(
    403, "The Host header does not name this server; allowed_hosts (--allowed-host) adds names."
)
_FOREIGN_PAGE = plain(403, "Pages of another origin cannot change anything here.")
_NOT_ALLOWED = plain(405, "Only GET and HEAD are allowed here.", (b"allow", b"GET, HEAD"))
_FAILED = plain(500, "Rendering the page failed; see the exporter's log.")
_TIMED_OUT = plain(503, "The page was not ready within the scrape timeout.", (b"retry-after", b"5"))

_DEFAULT_FIELDS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
}


class MetricsApp:
    """Answers GET and HEAD for ``/metrics`` and the paths of `routes`."""

    def __init__(
        self,
        source: PageSource,
        rendering: Rendering,
        workers: Workers,
        budget: ResponseBudget,
        limits: Limits,
        errors: ErrorLog,
        access: AccessControl | None,
        hosts: AllowedHosts,
    ) -> None:
        self._source = source
        self._routes = routes(source)
        self._workers = workers
        self._rendering = rendering
        self._budget = budget
        self._limits = limits
        self._errors = errors
        self._access = access
        self._hosts = hosts
        self._refused_a_host = False

    async def answer(self, request: Request) -> Answer:
        """The answer to a request; never raises."""
        try:
            return (await self._answer(request)).for_client(request.headers)
        except ScrapeTimeout:
            return _TIMED_OUT
        except Exception as error:
            self._errors.report("page", error)
            return _FAILED

    def fields(self, answer: Answer) -> Fields:
        """Header fields of an answer: the defaults, the answer's, then the configuration's."""
        fields = {**_DEFAULT_FIELDS, **dict(answer.fields)}
        if self._access is not None:
            fields.update(self._access.fields())
        return tuple(fields.items())

    @contextlib.contextmanager
    def sending(self, body: bytes) -> Iterator[None]:
        """Count a body while it is being sent."""
        self._budget.add(body)
        try:
            yield
        finally:
            self._budget.remove(body)

    def follow(self, request: Request, answer: Answer) -> Follow | None:
        """How to follow the delivery of a page of metrics, for `PageSource.served`."""
        if answer.format is None or request.method != "GET":
            return None
        timeout = scrape_timeout(request.headers.get(TIMEOUT_HEADER))
        seconds = self._limits.scrape_seconds if timeout is None else timeout
        left = min(seconds, self._limits.longest_scrape_seconds) - (
            time.monotonic() - request.asked_at
        )
        deadline = asyncio.get_running_loop().time() + left
        visit = Visit(
            request.address, request.user_agent, request.asked_at, timeout, request.connection
        )
        self._hand_over("visited", partial(self._source.visited, visit))
        report = partial(self._report, request, answer.format, len(answer.body), timeout)
        return Follow(deadline, timeout is not None, report)

    def _report(
        self,
        request: Request,
        format: str,
        size: int,
        timeout: float | None,
        sent_at: float,
        complete: bool,
    ) -> None:
        """Report a delivered page to the source, on a worker thread."""
        page = Served(
            address=request.address,
            user_agent=request.user_agent,
            asked_at=request.asked_at,
            seconds=sent_at - request.asked_at,
            size=size,
            format=format,
            timeout=timeout,
            complete=complete,
            connection=request.connection,
        )
        self._hand_over("served", partial(self._source.served, page))

    def _hand_over(self, where: str, call: Callable[[], None]) -> None:
        """Call the source on a worker thread; report what it raises."""

        def guarded() -> None:
            try:
                call()
            except Exception as error:
                self._errors.report(where, error)

        self._workers.submit(guarded)

    async def _answer(self, request: Request) -> Answer:
        host = request.headers.get(b"host")
        if request.address != "unix" and not await self._hosts.allow(host, request.local_address):
            self._warn_of_host(host or b"")
            return _FOREIGN_HOST
        if self._access is not None:
            refusal = await self._access.refusal(request.headers, request.address)
            if refusal is not None:
                return refusal
        posted = request.method == "POST" and request.path in POSTED
        if request.method not in {"GET", "HEAD"} and not posted:
            return _NOT_ALLOWED
        if posted and not same_origin(request.headers):
            return _FOREIGN_PAGE
        if request.path == METRICS_PATH:
            return await self._metrics(request.headers, request.query)
        route = self._routes.get(request.path, NOT_FOUND)
        if isinstance(route, Answer):
            return route
        if isinstance(route, SharedRoute):
            shared = route.at_once(request)
            if shared is not None:
                return shared
        work = self._workers.submit(partial(route, request))
        try:
            return await asyncio.wait_for(work, self._limits.scrape_seconds)
        except TimeoutError:
            raise ScrapeTimeout from None

    def _warn_of_host(self, host: bytes) -> None:
        """Log a refused host once: a scraper that uses an unconfigured name, or an attack."""
        if not self._refused_a_host:
            self._refused_a_host = True
            LOG.warning(
                "refused a request for the host %r, which is not a known name of this server;"
                " allowed_hosts (--allowed-host, ESPER_EXPORTER_ALLOWED_HOSTS) adds names",
                host[:100].decode("latin-1"),
            )

    async def _metrics(self, headers: Headers, query: str) -> Answer:
        media = negotiate(headers.get(b"accept"))
        gzip = accepts_gzip(headers.get(b"accept-encoding"))
        seconds = scrape_seconds(headers.get(TIMEOUT_HEADER), self._limits)
        started = time.perf_counter()
        await self._budget.room(seconds)
        left = seconds - (time.perf_counter() - started)
        part = self._source.part(query) if query else None
        page = await self._rendering.page(media, gzip, left, part)
        fields: Fields = (
            (b"content-type", media.content_type.encode()),
            (b"vary", b"Accept, Accept-Encoding"),
        )
        if gzip:
            fields += ((b"content-encoding", b"gzip"),)
        return Answer(200, page, fields, media.format)


def same_origin(headers: Headers) -> bool:
    """Whether a request comes from a page of this server, or from no browser at all."""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", b"same-origin")
    if site not in (b"same-origin", b"none"):
        return False
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


TIMEOUT_HEADER = b"x-prometheus-scrape-timeout-seconds"


def scrape_timeout(header: bytes | None) -> float | None:
    """The scraper's timeout in seconds; None where the header is absent or unreadable."""
    try:
        seconds = float(header or b"")
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def scrape_seconds(header: bytes | None, limits: Limits) -> float:
    """Seconds that a page may take: the scraper's timeout, less a tenth for the transfer.

    An absent or unreadable header means the default; very large values are capped.
    """
    seconds = min(scrape_timeout(header) or limits.scrape_seconds, limits.longest_scrape_seconds)
    return seconds - min(0.5, seconds * 0.1)
