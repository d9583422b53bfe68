"""Requests must name this server in their Host: the guard against DNS rebinding."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from esper_exporter.serve.hosts import AllowedHosts, host_name
from esper_exporter.serve.workers import Workers
from serve.clients import connect, curl, read_to_end, request
from serve.conftest import Serve
from serve.fakes import FakeSource

LOOPBACK, ALL, ONE, NAMED = "127.0.0.1", "0.0.0.0", "192.0.2.7", "trainer-7"


def allowed(bound: str, host: str | None, configured: Sequence[str] = ()) -> bool:
    async def ask() -> bool:
        workers = Workers(1, "test-worker")
        hosts = AllowedHosts(bound, configured, workers, lambda: f"{NAMED}.cluster.example")
        try:
            return await hosts.allow(None if host is None else host.encode("latin-1"), ONE)
        finally:
            workers.close(5.0)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: NAMED)


@pytest.mark.parametrize("bound", [LOOPBACK, "localhost", "::1", "", ALL, "::", ONE, NAMED])
def test_the_loopback_and_the_connection_s_own_address_are_always_allowed(bound: str) -> None:
    for host in (
        "localhost", "LocalHost:9108", "localhost.", "grafana.localhost", "127.0.0.1",
        "127.9.9.9:1", "[::1]", "[::1]:9108", "[::ffff:127.0.0.1]", ONE, f"{ONE}:9108", None,
    ):  # fmt: skip
        assert allowed(bound, host), host


@pytest.mark.parametrize("bound", [LOOPBACK, "localhost", "::1", "", ALL, "::", ONE, NAMED])
def test_other_names_are_refused_wherever_it_listens(bound: str) -> None:
    for host in (
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", f"{NAMED}.evil.example",
        "xlocalhost", "localhost@evil.example", "", " ", ":9108", "[::1", "[evil]", "[::1]x",
        "localhost:x", "localhost:1:2", "127.0.0.1, evil.example", "2130706433.evil", "\xff",
    ):  # fmt: skip
        assert not allowed(bound, host), host


@pytest.mark.parametrize("bound", ["", ALL, "::", ONE, NAMED])
def test_beyond_the_loopback_the_machine_s_names_are_allowed(bound: str) -> None:
    for host in (NAMED, f"{NAMED}:9108", NAMED.upper(), f"{NAMED}.cluster.example."):
        assert allowed(bound, host), host


def test_on_the_loopback_the_machine_s_names_are_refused() -> None:
    assert not allowed(LOOPBACK, NAMED)


@pytest.mark.parametrize("host", ["198.51.100.4", "198.51.100.4:9108", "[2001:db8::1]:9108"])
def test_any_address_is_allowed_only_where_all_are_served(host: str) -> None:
    assert [allowed(bound, host) for bound in ("", ALL, "::", ONE, LOOPBACK)] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("configured", "host", "expected"),
    [
        (["metrics.example.org"], "metrics.example.org:80", True),
        (["Metrics.Example.org."], "METRICS.example.ORG.", True),
        (["metrics.example.org"], "x.metrics.example.org", False),
        ([".example.org"], "a.b.example.org", True),
        ([".example.org"], "example.org", False),
        ([".example.org"], "evilexample.org", False),
        (["203.0.113.9"], "203.0.113.9", True),
        (["2001:db8::9"], "[2001:db8:0::9]:1", True),
        (["*"], "anything.example", True),
    ],
)
def test_configured_names_are_allowed(configured: list[str], host: str, expected: bool) -> None:
    assert allowed(LOOPBACK, host, configured) is expected


def test_a_resolver_that_fails_leaves_the_short_name() -> None:
    def fail() -> str:
        raise OSError("no resolver")

    async def ask(host: bytes) -> bool:
        workers = Workers(1, "test-worker")
        try:
            return await AllowedHosts(ALL, (), workers, fail).allow(host, ONE)
        finally:
            workers.close(5.0)

    assert asyncio.run(ask(NAMED.encode()))
    assert not asyncio.run(ask(b"evil.example"))


def test_a_host_is_read_without_its_port() -> None:
    assert [host_name(h) for h in (b"A.b:1", b"[::1]:2", b"a:", b"a:b", b"")] == [
        "a.b", "::1", "a", None, None,
    ]  # fmt: skip


# -- over the wire ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/nowhere"])
def test_a_foreign_host_gets_403_and_one_log_line(
    serve: Serve, source: FakeSource, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            reply = request(f"{server.url}{path}", headers={"Host": "evil.example"})
            assert reply.status == 403
            assert b"--allowed-host" in reply.body
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "evil.example" in caplog.text
    assert not source.rendered
    assert request(f"{server.url}/metrics").status == 200


def test_an_absolute_target_names_the_host(serve: Serve) -> None:
    """RFC 9112 §3.2.2: its authority counts, not the Host beside it."""
    for authority, status in (("localhost", b"200"), ("evil.example", b"403")):
        with connect(serve().port or 0) as sock:
            sock.sendall(
                f"GET http://{authority}/-/healthy HTTP/1.1\r\nHost: localhost\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            assert read_to_end(sock).startswith(b"HTTP/1.1 " + status)


def test_configured_names_and_unix_sockets_are_answered(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "esper.sock"
    server = serve(allowed_hosts=["metrics.example"], unix_socket=path)
    assert request(f"{server.url}/metrics", headers={"Host": "metrics.example"}).status == 200
    assert curl("--unix-socket", str(path), "http://evil.example/metrics").status == 200
