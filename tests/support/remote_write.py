"""A receiver of remote write that keeps what it takes, and answers as a test tells it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cramjam import snappy

from esper_exporter.push.write_request import WriteRequest

Key = tuple[tuple[str, str], ...]


@dataclass
class Answer:
    """A status with headers; ``seconds`` go by before it."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    body: bytes = b""


class FakeReceiver:
    """``answers`` come first, then ``answer`` for every request; what a 2xx answers is kept."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.answers: list[Answer] = []
        self.asked: list[tuple[float, Mapping[str, str]]] = []
        """When each request came (monotonic seconds), and its headers."""
        self.taken: list[Any] = []
        """The WriteRequest messages that were taken."""
        self.got = threading.Condition()
        self.url = ""

    def values(self, name: str, **labels: str) -> list[tuple[int, float]]:
        """The samples of all series with these labels, in the order in which they came."""
        wanted = {"__name__": name, **labels}.items()
        found = []
        for request in list(self.taken):
            for series in request.timeseries:
                of = {label.name: label.value for label in series.labels}
                if wanted <= of.items():
                    found += [(sample.timestamp, sample.value) for sample in series.samples]
        return found

    def wait_for(self, condition: Any, what: str, seconds: float = 30.0) -> None:
        """Wait until a condition holds, which is asked after each request."""
        with self.got:
            assert self.got.wait_for(condition, seconds), what


@contextmanager
def fake_receiver(context: Any = None) -> Iterator[FakeReceiver]:
    """A receiver on a free port; over TLS with an SSLContext."""
    state = FakeReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with state.got:
                answer = state.answers.pop(0) if state.answers else state.answer
                state.asked.append((time.monotonic(), dict(self.headers)))
                if 200 <= answer.status < 300:
                    message = bytes(snappy.decompress_raw(body))
                    state.taken.append(WriteRequest.FromString(message))
                state.got.notify_all()
            released.wait(answer.seconds)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has given up is no error here."""

    released = threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    state.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/api/v1/write"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
