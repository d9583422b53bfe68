"""Render pages for requests, within limits of rendering time and of bytes being sent.

Requests for the same format that wait at the same time share one page, rendered after the last
of them arrived. So no client gets a page older than its request, and a flood costs only its
share of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from esper_exporter.serve.interfaces import PageSource, Render
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.negotiation import MediaType
from esper_exporter.serve.workers import Workers


class ScrapeTimeout(Exception):
    """The page was not ready within the scrape's timeout."""


class Rendering:
    """Renders pages on worker threads: rendering may wait for the exporter's lock."""

    def __init__(self, source: PageSource, workers: Workers, limits: Limits) -> None:
        self._source = source
        self._workers = workers
        self._limits = limits
        self._waiting: dict[tuple[MediaType, bool], asyncio.Future[bytes]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(limits.renders_at_once)
        self._not_before = 0.0

    async def page(
        self, media: MediaType, gzip: bool, seconds: float, part: Render | None = None
    ) -> bytes:
        """A page rendered from now on, or a part of it, which no other request shares. Raises
        ScrapeTimeout, or what the source raised."""
        if part is not None:
            return await self._part(partial(part, media, gzip), seconds)
        key = media, gzip
        future = self._waiting.get(key)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve)
            self._waiting[key] = future
            task = asyncio.create_task(self._render(key, future))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if not done:
            raise ScrapeTimeout
        return future.result()

    async def _part(self, render: Callable[[], bytes], seconds: float) -> bytes:
        async def slot() -> bytes:
            async with self._slots:
                return await self._workers.submit(render)

        try:
            return await asyncio.wait_for(slot(), seconds)
        except TimeoutError:
            raise ScrapeTimeout from None

    async def _render(self, key: tuple[MediaType, bool], future: asyncio.Future[bytes]) -> None:
        media, gzip = key
        await asyncio.sleep(max(0.0, self._not_before - time.perf_counter()))
        async with self._slots:
            del self._waiting[key]  # later requests need a newer page
            started = time.perf_counter()
            try:
                page = await self._workers.submit(partial(self._source.render, media, gzip))
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(page)
            finished = time.perf_counter()
        pause = (finished - started) * (1 / self._limits.render_share - 1)
        self._not_before = finished + min(pause, self._limits.longest_render_pause_seconds)


def _retrieve(future: asyncio.Future[bytes]) -> None:
    """Mark the error as retrieved: every waiting request may have given up by now."""
    if not future.cancelled():
        future.exception()


class ResponseBudget:
    """Limits the bytes of pages being sent to clients.

    A page stays in memory until its client has read it, so slow readers hold memory. At the limit
    new pages wait, and stalled readers are aborted to make room.
    """

    def __init__(self, limit: int, cut_stalled: Callable[[], None]) -> None:
        self._limit = limit
        self._cut_stalled = cut_stalled
        self._pages: dict[int, tuple[bytes, int]] = {}
        """Each page being sent, by identity, with the number of clients that share it."""
        self._bytes = 0
        self._freed = asyncio.Event()

    async def room(self, seconds: float) -> None:
        """Wait until another page may be rendered. Raises ScrapeTimeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._bytes >= self._limit:
            self._cut_stalled()
            if (left := deadline - loop.time()) <= 0:
                raise ScrapeTimeout
            self._freed.clear()
            try:
                # Wake up now and then as well: another reader may have stalled by then.
                await asyncio.wait_for(self._freed.wait(), min(left, 0.1))
            except TimeoutError:
                continue

    def add(self, page: bytes) -> None:
        _, clients = self._pages.get(id(page), (page, 0))
        self._pages[id(page)] = page, clients + 1
        if clients == 0:
            self._bytes += len(page)

    def remove(self, page: bytes) -> None:
        _, clients = self._pages[id(page)]
        if clients > 1:
            self._pages[id(page)] = page, clients - 1
            return
        del self._pages[id(page)]
        self._bytes -= len(page)
        self._freed.set()
