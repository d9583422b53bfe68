"""Each path, method and header gets the answer that it should."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable

import pytest

from esper_exporter.serve.app import same_origin, scrape_seconds
from esper_exporter.serve.limits import Limits
from esper_exporter.serve.server import MetricsServer
from serve.clients import connect, curl, read_to_end, request
from serve.fakes import FakeSource
from support.threads import exporter_threads

Serve = Callable[..., MetricsServer]


def test_metrics_are_served_with_headers_that_belong_to_them(
    serve: Serve, source: FakeSource
) -> None:
    reply = request(f"{serve().url}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert (reply.status, reply.body) == (200, source.body + b"# EOF\n")
    assert reply.headers["content-type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert reply.headers["cache-control"] == "no-store"
    assert "content-encoding" not in reply.headers
    assert "server" not in reply.headers


def test_a_compressed_page_says_so(serve: Serve, source: FakeSource) -> None:
    reply = request(f"{serve().url}/metrics", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == source.body
    assert source.wait_for_scrapes(1)
    assert source.scrapes[0].size == len(reply.body)


def test_a_page_larger_than_every_buffer_arrives_whole(serve: Serve, source: FakeSource) -> None:
    source.body = b"esper_big 1\n" * 700_000
    assert request(f"{serve().url}/metrics").body == source.body
    assert source.wait_for_scrapes(1)


@pytest.mark.parametrize(
    ("path", "ready", "status", "says"),
    [
        ("/-/healthy", False, 200, b"healthy"),
        ("/-/ready", True, 200, b"ready"),
        ("/-/ready", False, 503, b"no run"),
        ("/", False, 200, b"<!doctype html>"),
        ("/favicon.ico", True, 404, b"/metrics"),
        ("/metrics/", True, 404, b"/metrics"),
        ("/Metrics", True, 404, b"/metrics"),
        ("/%2e%2e/etc/passwd", True, 404, b"/metrics"),
        ("/metrics?name[]=a", True, 200, b"esper_run_info"),
        ("/%6detrics", True, 200, b"esper_run_info"),
    ],
)
def test_each_path_has_its_answer(
    serve: Serve, source: FakeSource, path: str, ready: bool, status: int, says: bytes
) -> None:
    source.is_ready = ready
    reply = curl("--path-as-is", "-g", f"{serve().url}{path}")
    assert reply.status == status
    assert says in reply.body
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/metrics", "/nowhere"])
def test_other_methods_are_not_allowed(serve: Serve, method: str, path: str) -> None:
    reply = request(f"{serve().url}{path}", method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert reply.body


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/nowhere"])
def test_head_is_get_without_the_body_and_counts_as_no_scrape(
    serve: Serve, source: FakeSource, path: str
) -> None:
    url = f"{serve().url}{path}"
    head, get = request(url, "HEAD"), request(url)
    assert (head.status, head.body) == (get.status, b"")
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    expected = 1 if path == "/metrics" else 0
    assert source.wait_for_scrapes(expected)
    assert len(source.scrapes) == expected


def test_a_source_that_raises_gives_500_without_its_traceback_and_one_log_line(
    serve: Serve, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("secret detail")

    source.before = fail
    heard: list[str] = []
    with caplog.at_level(logging.INFO, "esper_exporter.serve"):
        server = serve(on_error=heard.append)
        for _ in range(3):
            reply = request(f"{server.url}/metrics")
            assert reply.status == 500
            assert b"secret" not in reply.body and b"Traceback" not in reply.body
    assert heard == ["page", "page", "page"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "secret detail" in caplog.text
    source.before = lambda: None
    assert request(f"{server.url}/metrics").status == 200


def test_one_connection_serves_many_requests_and_an_old_client_too(serve: Serve) -> None:
    server = serve()
    with connect(server.port or 0) as sock:
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_to_end(sock).count(b"is healthy") == 4
    with connect(server.port or 0) as sock:
        sock.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        assert read_to_end(sock).count(b"is healthy") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"\r\n\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
)
def test_no_bytes_break_the_server_or_make_it_talkative(
    serve: Serve, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(limits=Limits(head_seconds=0.5))
    with caplog.at_level(logging.INFO), connect(server.port or 0, 3.0) as sock:
        sock.sendall(sent)
        sock.shutdown(1)
        answer = read_to_end(sock)
        assert not answer.startswith(b"HTTP/1.1 5")
        assert request(f"{server.url}/metrics").status == 200
    assert not caplog.records


def test_an_offer_to_speak_http_2_is_left_unanswered(serve: Serve, source: FakeSource) -> None:
    reply = curl("--http2", f"{serve().url}/metrics")
    assert (reply.status, reply.body) == (200, source.body)


def test_an_unread_body_does_not_keep_a_connection_open(serve: Serve, source: FakeSource) -> None:
    server = serve()
    with connect(server.port or 0, 3.0) as sock:
        sock.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        )
        try:
            for _ in range(200):
                sock.sendall(bytes(65536))
        except OSError:
            pass
        read_to_end(sock)
    server.close()
    assert not exporter_threads()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 9.5),
        (b"10", 9.5),
        (b"1", 0.9),
        (b"0.2", 0.18),
        (b"5.5", 5.0),
        (b"1e9", 59.5),
        (b"0", 9.5),
        (b"-3", 9.5),
        (b"nan", 9.5),
        (b"inf", 9.5),
        (b"soon", 9.5),
        (b"\xff\xfe", 9.5),
    ],
)
def test_the_scrape_timeout_leaves_time_for_the_way_back(
    header: bytes | None, expected: float
) -> None:
    assert scrape_seconds(header, Limits()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, True),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, False),
        ({"host": "localhost:1", "origin": "null"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_only_pages_of_this_server_may_change_something(
    headers: dict[str, str], expected: bool
) -> None:
    assert same_origin({k.encode(): v.encode() for k, v in headers.items()}) is expected
