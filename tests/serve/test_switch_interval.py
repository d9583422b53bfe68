"""The switch interval is short while a client is served, and only then."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from esper_exporter.serve.switch_interval import SHORT_SECONDS, SwitchInterval
from serve.clients import connect, request
from serve.conftest import Serve
from serve.fakes import FakeSource
from support.programs import wait_until

KEEP = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"


def short() -> bool:
    return sys.getswitchinterval() == pytest.approx(SHORT_SECONDS)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    assert sys.getswitchinterval() == before
    sys.setswitchinterval(before)


def test_it_is_short_while_a_page_is_rendered_and_as_before_when_all_is_quiet(
    serve: Serve, source: FakeSource
) -> None:
    seen: list[bool] = []
    source.before = lambda: seen.append(short())
    server = serve()
    request(f"{server.url}/metrics")
    assert seen == [True]
    wait_until(lambda: not short(), "the client is gone")


def test_a_client_that_keeps_its_connection_costs_nothing_between_requests(serve: Serve) -> None:
    server = serve()
    with connect(server.port or 0) as sock:
        sock.sendall(KEEP)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        wait_until(lambda: not short(), "it idles")
        sock.sendall(KEEP[:10])
        wait_until(short, "it is heard again")
        sock.shutdown(socket.SHUT_RDWR)


def test_closing_amid_a_request_restores_it(serve: Serve) -> None:
    server = serve()
    with connect(server.port or 0) as sock:
        sock.sendall(KEEP[:10])
        wait_until(short, "it is heard")
        server.close()
    assert not short()


def test_a_forked_child_has_it_as_it_was(serve: Serve) -> None:
    server = serve()
    with connect(server.port or 0) as sock:
        sock.sendall(KEEP[:10])
        wait_until(short, "it is heard")
        pid = os.fork()
        if pid == 0:
            os._exit(1 if short() else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_value_that_other_code_sets_meanwhile_stays() -> None:
    before = sys.getswitchinterval()
    turns = SwitchInterval()
    turns.begin()
    turns.begin()
    sys.setswitchinterval(0.002)
    turns.end()
    turns.end()
    assert sys.getswitchinterval() == pytest.approx(0.002)
    sys.setswitchinterval(before)


def test_one_that_is_shorter_already_is_left_alone() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    turns = SwitchInterval()
    turns.begin()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    turns.end()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    sys.setswitchinterval(before)
