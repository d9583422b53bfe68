"""Forked children and the server's port."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from esper_exporter.serve.server import MetricsServer
from serve.clients import connect, curl, read_until, request
from serve.fakes import FakeSource
from support.threads import exporter_threads

Serve = Callable[..., MetricsServer]


def _in_child(port: int, server: MetricsServer) -> None:
    """Exits with 0 when the child neither holds the port nor a client, nor serves."""
    tcp = [c for c in psutil.Process().net_connections("tcp") if c.laddr and c.laddr.port == port]
    assert not tcp, tcp
    assert not server.listening
    server.close()
    assert not exporter_threads()
    assert request(f"http://127.0.0.1:{port}/metrics").status == 200
    gc.collect()


def test_a_forked_child_neither_holds_the_port_nor_serves(
    serve: Serve, source: FakeSource, tmp_path: Path
) -> None:
    path = tmp_path / "esper.sock"
    server = serve(unix_socket=path)
    port = server.port or 0
    open_client = connect(port)
    open_client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read_until(open_client, b"is healthy")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _in_child(port, server)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    # The child let go of the client's connection without ending it for the parent.
    open_client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read_until(open_client, b"is healthy")
    open_client.close()
    assert curl("--unix-socket", str(path), "http://x/metrics").status == 200
    assert request(f"{server.url}/metrics").status == 200


def test_the_port_is_free_while_a_forked_child_lives_on(serve: Serve) -> None:
    server = serve()
    port = server.port
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"forked")
        time.sleep(30)
        os._exit(0)
    try:
        assert os.read(reading, 6) == b"forked"
        server.close()
        again = serve(port=port, strict=True)
        assert request(f"{again.url}/metrics").status == 200
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_a_forked_child_may_serve_on_its_own(serve: Serve) -> None:
    server = serve()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own = MetricsServer(FakeSource(b"child 1\n"), host="127.0.0.1", port=0)
            own.start()
            code = 0 if request(f"{own.url}/metrics").body == b"child 1\n" else 2
            own.close()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert request(f"{server.url}/metrics").status == 200


def _child_sockets(port: int, answer: multiprocessing.Queue[int]) -> None:
    found = psutil.Process().net_connections("tcp")
    answer.put(sum(1 for c in found if c.laddr and c.laddr.port == port))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_children_do_not_hold_the_port(serve: Serve, method: str) -> None:
    port = serve().port or 0
    context = multiprocessing.get_context(method)
    answer = context.Queue()
    child = context.Process(target=_child_sockets, args=(port, answer))
    child.start()
    assert answer.get(timeout=20) == 0
    child.join(20)
    assert child.exitcode == 0


def test_forks_amid_scrapes_stop_neither(serve: Serve, source: FakeSource) -> None:
    server = serve()
    done = threading.Event()
    failures: list[object] = []

    def scrape() -> None:
        while not done.is_set():
            try:
                reply = request(f"{server.url}/metrics", timeout=5)
            except OSError as error:
                failures.append(error)
            else:
                if reply.body != source.body:
                    failures.append(reply)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if not server.listening else 1)
        if os.waitpid(pid, 0)[1] != 0:
            failures.append("a child listens")
    done.set()
    for thread in threads:
        thread.join(10)
    assert not failures
