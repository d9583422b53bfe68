"""Whatever clients do, a legitimate scrape answers within a second, and memory and threads stay
bounded."""

from __future__ import annotations

import logging
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from esper_exporter.serve.limits import Limits
from esper_exporter.serve.runtime import connection_limit
from esper_exporter.serve.server import MetricsServer
from serve.clients import (
    closed_within,
    connect,
    patience,
    read_until,
    request,
    seconds_to_scrape,
)
from serve.fakes import FakeSource
from support.memory import allocated_bytes
from support.programs import wait_until

Serve = Callable[..., MetricsServer]
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def descriptors(soft: int) -> Iterator[None]:
    """This process with another limit of open files: it holds both ends of all connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_500_idle_connections_do_not_block_a_scrape(serve: Serve) -> None:
    with descriptors(4096), ExitStack() as stack:
        server = serve()
        threads = threading.active_count()
        allocated = stack.enter_context(allocated_bytes())
        for _ in range(500):
            stack.enter_context(connect(server.port or 0))
        assert seconds_to_scrape(server.url or "") < patience()
        assert threading.active_count() <= threads + Limits().workers
        assert allocated() < 40e6


def test_1000_idle_connections_and_300_stalled_readers_do_not_block_a_scrape(
    serve: Serve, source: FakeSource
) -> None:
    source.body = b"esper_run_info 1\n" * 60_000
    with descriptors(4096), ExitStack() as stack:
        server = serve()
        threads = threading.active_count()
        for number in range(1300):
            sock = stack.enter_context(connect(server.port or 0))
            if number % 13 < 3:
                with suppress(OSError):
                    sock.sendall(SCRAPE * 4)
        for _ in range(3):
            assert seconds_to_scrape(server.url or "") < patience()
        assert threading.active_count() <= threads + Limits().workers


def test_more_connections_than_the_limit_make_room_for_a_scrape(serve: Serve) -> None:
    with ExitStack() as stack:
        server = serve(limits=Limits(connections=50))
        crowd = [stack.enter_context(connect(server.port or 0)) for _ in range(200)]
        for _ in range(5):
            assert seconds_to_scrape(server.url or "") < patience()
        assert sum(closed_within(sock, 10.0) for sock in crowd[:150]) == 150
        assert not closed_within(crowd[-1], 0.1)


def test_a_connection_in_use_outlives_idle_ones_that_came_later(serve: Serve) -> None:
    with ExitStack() as stack:
        server = serve(limits=Limits(connections=20))
        scraper = stack.enter_context(connect(server.port or 0))
        for _ in range(10):
            for _ in range(15):
                stack.enter_context(connect(server.port or 0))
            scraper.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_until(scraper, b"is healthy")


@pytest.mark.parametrize(("soft", "expected"), [(64, 16), (256, 64), (1024, 256), (4096, 512)])
def test_connections_leave_most_descriptors_to_the_training(soft: int, expected: int) -> None:
    with descriptors(soft):
        assert connection_limit(Limits()) == expected


def test_running_out_of_descriptors_is_survived(serve: Serve) -> None:
    server = serve()
    port = server.port or 0
    with ExitStack() as stack:
        used = psutil.Process().num_fds()
        with descriptors(used + 12):
            try:
                while True:
                    stack.enter_context(connect(port))
            except OSError:
                pass
        assert seconds_to_scrape(server.url or "") < patience()


def test_headers_at_a_byte_a_second_are_cut_and_do_not_block_a_scrape(serve: Serve) -> None:
    with ExitStack() as stack:
        server = serve(limits=Limits(head_seconds=0.6))
        slow = [stack.enter_context(connect(server.port or 0)) for _ in range(50)]
        for _ in range(4):
            for sock in slow:
                with suppress(OSError):  # on a busy machine its time is over by now
                    sock.send(b"G")
            assert seconds_to_scrape(server.url or "") < patience()
            time.sleep(0.1)
        assert all(closed_within(sock, 10.0) for sock in slow)


def test_a_connection_that_idles_is_closed_in_the_end(serve: Serve) -> None:
    server = serve(limits=Limits(idle_seconds=0.2, head_seconds=5.0))
    with connect(server.port or 0) as sock:
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(sock, b"is healthy")
        assert closed_within(sock, 10.0)


def test_the_head_of_a_later_request_has_its_own_limit(serve: Serve) -> None:
    server = serve(limits=Limits(idle_seconds=30.0, head_seconds=0.3))
    with connect(server.port or 0) as sock:
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(sock, b"is healthy")
        assert not closed_within(sock, 0.5)
        sock.sendall(b"GET /-/hea")
        assert closed_within(sock, 10.0)


def test_slow_readers_are_cut_and_do_not_block_a_scrape(serve: Serve, source: FakeSource) -> None:
    source.body = bytes(8_000_000)
    with ExitStack() as stack:
        server = serve(limits=Limits(write_seconds=1.0))
        slow = [stack.enter_context(connect(server.port or 0)) for _ in range(20)]
        for sock in slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(SCRAPE)
        assert seconds_to_scrape(server.url or "") < patience()
        wait_until(lambda: not _busy(server), "the slow readers are cut")
    # None of the twenty; a busy machine needs several legitimate scrapes.
    assert 1 <= len(source.scrapes) <= 5


def _busy(server: MetricsServer) -> int:
    """Connections that the server still has beside its listening socket."""
    found = psutil.Process().net_connections("tcp")
    return sum(
        1
        for c in found
        if c.laddr and c.laddr.port == server.port and c.status == psutil.CONN_ESTABLISHED
    )


def test_unread_pages_do_not_fill_the_memory(serve: Serve, source: FakeSource) -> None:
    """Every reader gets a separate page and reads nothing, and more connect than fit."""
    page = 16_000_000

    def fresh() -> None:
        source.body = b"x" * page

    source.before = fresh
    with ExitStack() as stack:
        server = serve(limits=Limits(unsent_bytes=3 * page, stall_seconds=0.1))
        allocated = stack.enter_context(allocated_bytes())
        for _ in range(12):
            sock = stack.enter_context(connect(server.port or 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(SCRAPE)
            time.sleep(0.03)  # so that requests do not share a page that is still to be rendered
        assert seconds_to_scrape(server.url or "") < patience()
        assert allocated() < 6 * page


def test_a_client_that_leaves_midway_is_no_scrape(serve: Serve, source: FakeSource) -> None:
    source.body = bytes(20_000_000)
    server = serve()
    with connect(server.port or 0) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(SCRAPE)
        sock.recv(100)
    wait_until(lambda: not _busy(server), "the connection ends")
    assert request(f"{server.url}/metrics").status == 200
    assert source.wait_for_scrapes(1)
    assert len(source.scrapes) == 1


def test_200_parallel_scrapes_share_few_pages_and_all_get_theirs(
    serve: Serve, source: FakeSource
) -> None:
    source.body = b"esper_policy 1\n" * 70_000
    source.before = lambda: time.sleep(0.005)
    with descriptors(4096):
        server = serve()
        threads = threading.active_count()
        with ThreadPoolExecutor(200) as pool:
            started = time.monotonic()
            times = list(pool.map(lambda _: seconds_to_scrape(server.url or ""), range(200)))
            wall = time.monotonic() - started
        assert source.wait_for_scrapes(200)
    assert len(source.rendered) < 150
    assert threading.active_count() <= threads + Limits().workers
    assert wall < 4 * patience(), times


def test_a_flood_of_scrapes_leaves_most_of_the_time_to_others(
    serve: Serve, source: FakeSource
) -> None:
    source.before = lambda: time.sleep(0.01)
    server = serve()
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            request(f"{server.url}/metrics")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin, started = len(source.rendered), time.monotonic()
    time.sleep(1.0)
    share = (len(source.rendered) - begin) * 0.01 / (time.monotonic() - started)
    assert seconds_to_scrape(server.url or "") < patience()
    stop.set()
    for thread in threads:
        thread.join(5)
    assert share < 0.35


@pytest.mark.parametrize("path", ["/-/healthy", "/metrics"])
def test_pipelined_requests_and_a_reset_leave_nothing_on_stderr(
    serve: Serve, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            sock = connect(server.port or 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 3900)
            sock.recv(100)  # the server is in the midst of answering
            sock.close()
        wait_until(lambda: not _busy(server), "the connections end")
        assert request(f"{server.url}/metrics").status == 200
    assert not caplog.records


# -- renders that take long -----------------------------------------------------------------


def test_a_slow_render_on_a_worker_holds_up_nothing_else(serve: Serve, source: FakeSource) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    source.before = wait
    server = serve()
    with ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(request, f"{server.url}/metrics")
        assert begun.wait(5)
        assert request(f"{server.url}/-/healthy", timeout=1).status == 200
        go_on.set()
        assert scrape.result(5).status == 200
    assert source.threads == {"esper-exporter-worker-0"}


def test_a_render_that_hangs_is_given_up_at_the_scrape_timeout(
    serve: Serve, source: FakeSource
) -> None:
    go_on = threading.Event()

    def hang() -> None:
        go_on.wait(20)

    source.before = hang
    server = serve()
    threads = threading.active_count()
    for _ in range(6):
        started = time.monotonic()
        reply = request(
            f"{server.url}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "0.2"}
        )
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert time.monotonic() - started < 5  # it hangs for 20
    assert threading.active_count() - threads <= Limits().renders_at_once
    go_on.set()
    wait_until(lambda: request(f"{server.url}/metrics").status == 200, "it serves again")


def test_every_page_is_rendered_after_its_request_came(serve: Serve, source: FakeSource) -> None:
    """Requests share pages, and yet none gets one that is older than itself."""
    state = {"now": 0}

    def write() -> None:
        source.body = b"%d" % state["now"]
        time.sleep(0.003)

    source.before = write
    server = serve()
    late: list[tuple[int, int]] = []

    def scrape(_: int) -> None:
        for _ in range(15):
            state["now"] += 1
            asked = state["now"]
            got = int(request(f"{server.url}/metrics").body)
            if got < asked:
                late.append((asked, got))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(scrape, range(6)))
    assert not late
