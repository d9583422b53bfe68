"""A page counts as seen only when its scraper got it: within its timeout, and without giving up."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from esper_exporter.serve.interfaces import Served
from esper_exporter.serve.server import MetricsServer
from serve.clients import connect, read_until, request
from serve.conftest import Serve
from serve.fakes import FakeSource
from support.programs import wait_until

SMALL, LARGE = b"esper_run_info 1\n", b"esper_run_info 1\n" * 2_000_000


def ask(server: MetricsServer, timeout: float | None, version: str = "1.1") -> socket.socket:
    """A connection with a scraper's request for a page, with that timeout."""
    sock = connect(server.port or 0)
    named = "" if timeout is None else f"X-Prometheus-Scrape-Timeout-Seconds: {timeout}\r\n"
    sock.sendall(
        f"GET /metrics HTTP/{version}\r\nHost: localhost\r\nUser-Agent: Prometheus/3\r\n"
        f"{named}\r\n".encode()
    )
    return sock


def outcome(source: FakeSource, seconds: float = 10.0) -> Served:
    """What the server says of the first page."""
    with source.changed:
        assert source.changed.wait_for(lambda: source.all_served, seconds), "nothing was reported"
    return source.all_served[0]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_record_names_the_client_and_the_time(serve: Serve, source: FakeSource) -> None:
    before = time.monotonic()
    with ask(serve(), 30.0) as sock:
        read_until(sock, SMALL)
        sock.close()
        page = outcome(source)
    assert (page.address, page.user_agent, page.timeout) == ("127.0.0.1", "Prometheus/3", 30.0)
    assert (page.size, page.format, page.complete) == (len(SMALL), "text", True)
    assert before <= page.asked_at <= time.monotonic()
    assert 0 <= page.seconds < 10


def test_a_scraper_that_reads_and_closes_has_seen_the_page(
    serve: Serve, source: FakeSource
) -> None:
    for version in ("1.0", "1.1"):
        source.all_served.clear()
        with ask(serve(), 30.0, version) as sock:
            read_until(sock, SMALL)
        assert outcome(source).complete, version


def test_a_scraper_that_asks_again_has_seen_the_page_before(
    serve: Serve, source: FakeSource
) -> None:
    with ask(serve(), 30.0) as sock:
        read_until(sock, SMALL)
        assert not source.all_served
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert outcome(source).complete


def test_a_scraper_that_stays_until_its_timeout_has_seen_the_page(
    serve: Serve, source: FakeSource
) -> None:
    with ask(serve(), 0.5) as sock:
        read_until(sock, SMALL)
        assert outcome(source).complete


def test_a_client_without_a_timeout_has_seen_the_page_once_it_is_taken(
    serve: Serve, source: FakeSource
) -> None:
    with ask(serve(), None) as sock:
        read_until(sock, SMALL)
        page = outcome(source)
        assert (page.complete, page.timeout) == (True, None)


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("timeout", [0.5, 30.0, None])
def test_a_scraper_that_gives_up_while_the_page_is_rendered_has_not_seen_it(
    serve: Serve,
    source: FakeSource,
    leave: Callable[[socket.socket], None],
    timeout: float | None,
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        go_on.wait(10)

    source.before = wait
    server = serve()
    sock = ask(server, timeout)
    assert asked.wait(10)
    leave(sock)
    go_on.set()
    assert request(f"{server.url}/metrics").status == 200
    assert source.wait_for_scrapes(1)
    assert [page.user_agent for page in source.scrapes] == [""]


def test_a_scraper_that_never_reads_a_small_page_has_not_seen_it(
    serve: Serve, source: FakeSource
) -> None:
    """Its kernel acknowledged every byte: only the reset at its timeout reveals it."""
    sock = ask(serve(), 5.0)
    wait_until(lambda: source.rendered, "the request for the page")
    time.sleep(0.2)  # the page lies in the client's buffer
    assert not source.all_served
    sock.close()
    assert not outcome(source).complete


@pytest.mark.parametrize("timeout", [0.5, 1.0])
def test_a_scraper_that_never_reads_a_large_page_is_cut_at_its_timeout(
    serve: Serve, source: FakeSource, timeout: float
) -> None:
    source.body = LARGE
    with ask(serve(), timeout):
        page = outcome(source)
    assert not page.complete
    assert page.seconds >= timeout * 0.9


def test_a_page_that_the_server_closes_on_is_reported_too(serve: Serve, source: FakeSource) -> None:
    server = serve()
    with ask(server, 30.0) as sock:
        read_until(sock, SMALL)
        server.close()
        assert outcome(source).complete


def test_pages_over_a_unix_socket_are_followed_too(
    serve: Serve, source: FakeSource, tmp_path: object
) -> None:
    path = f"{tmp_path}/esper.sock"
    serve(port=None, unix_socket=path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(sock, SMALL)
        page = outcome(source)
        assert (page.address, page.complete) == ("unix", True)


def test_a_source_that_waits_for_a_lock_holds_up_nothing_that_does_not_need_it(
    serve: Serve, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop calls no method of the source itself."""
    go_on = threading.Event()

    def wait(*_arguments: object) -> bool:
        go_on.wait(20)
        return True

    server = serve()
    with ask(server, 30.0) as scraper:
        read_until(scraper, SMALL)
        for method in ("ready", "served", "visited"):
            monkeypatch.setattr(source, method, wait)
        monkeypatch.setattr(source, "before", wait)
        waiting = [ask(server, None) for _ in range(3)]
        for _ in range(3):
            sock = connect(server.port or 0)
            sock.sendall(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            waiting.append(sock)
        wait_until(lambda: len(source.rendered) > 1, "a page is being rendered")
        assert request(f"{server.url}/-/healthy", timeout=10).status == 200
        go_on.set()
        for sock in waiting:
            sock.close()
