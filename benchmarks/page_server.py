"""Serve the pages of thousands of simulated runs from one thread, compressed once beforehand."""

from __future__ import annotations

import asyncio
import gzip
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
    "Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n"
)


class _Runs(asyncio.Protocol):
    """Answers /RUN/metrics with the run's next page; each run begins at another one."""

    def __init__(self, answers: Sequence[bytes], asked: dict[int, int]) -> None:
        self._answers = answers
        self._asked = asked
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            run = int(request.split(b"/", 2)[1])
            count = self._asked[run] = self._asked.get(run, run) + 1
            self._transport.write(self._answers[count % len(self._answers)])


@contextmanager
def serving(pages: Sequence[bytes]) -> Iterator[tuple[int, float]]:
    """Serve /RUN/metrics for any number of runs; the port, and the mean bytes of a page sent."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bodies = [gzip.compress(page, 1) for page in pages]
    answers = [HEAD.format(len(body)).encode() + body for body in bodies]
    asked: dict[int, int] = {}
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: _Runs(answers, asked), "127.0.0.1", 0, backlog=4096)
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], sum(map(len, bodies)) / len(bodies)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()
