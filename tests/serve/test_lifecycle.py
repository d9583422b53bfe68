"""Starts, closes, addresses in use and forks leave nothing behind and block nothing."""

from __future__ import annotations

import gc
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from esper_exporter.serve.limits import Limits
from esper_exporter.serve.listening import ListenError, PortTaken
from esper_exporter.serve.server import MetricsServer
from serve.clients import connect, curl, patience, read_to_end, request
from serve.fakes import FakeSource
from support.command import SOURCE
from support.programs import wait_until
from support.threads import exporter_threads

Serve = Callable[..., MetricsServer]
QUICK = Limits(retry_seconds=0.05)


def test_port_0_is_a_real_port_at_once(serve: Serve) -> None:
    server = serve()
    assert server.listening
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert request(f"{server.url}/metrics").status == 200


def test_starting_twice_and_closing_twice_are_harmless(serve: Serve) -> None:
    server = serve()
    port = server.port
    server.start()
    assert (server.port, len(exporter_threads())) == (port, 1)
    server.close()
    server.close()
    assert not server.listening
    assert not exporter_threads()


def test_a_closed_server_can_start_again(serve: Serve) -> None:
    server = serve()
    server.close()
    server.start()
    assert request(f"{server.url}/metrics").status == 200


def test_closing_before_starting_is_harmless(source: FakeSource) -> None:
    server = MetricsServer(source, host="127.0.0.1", port=0)
    server.close()
    assert (server.listening, server.port, server.url) == (False, None, None)


def test_a_hundred_starts_and_stops_leave_no_thread_and_no_descriptor(source: FakeSource) -> None:
    process = psutil.Process()

    def once() -> None:
        server = MetricsServer(source, host="127.0.0.1", port=0)
        server.start()
        assert request(f"{server.url}/metrics").status == 200
        idle = connect(server.port or 0)
        server.close()
        idle.close()

    once()
    gc.collect()
    threads, descriptors = threading.active_count(), process.num_fds()
    for _ in range(100):
        once()
    gc.collect()
    assert (threading.active_count(), process.num_fds()) == (threads, descriptors)


def test_closing_lets_an_answer_under_way_go_out(serve: Serve, source: FakeSource) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(5)

    source.before = wait
    server = serve()
    with connect(server.port or 0) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(5)
        closing = threading.Thread(target=server.close)
        closing.start()
        wait_until(lambda: not server.listening, "it no longer listens")
        go_on.set()
        assert read_to_end(sock).endswith(source.body)
        closing.join(5)
    assert len(source.scrapes) == 1


def test_closing_takes_about_a_second_whatever_clients_do(serve: Serve, source: FakeSource) -> None:
    source.body = bytes(20_000_000)
    server = serve()
    slow, idle = connect(server.port or 0), connect(server.port or 0)
    slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    slow.recv(100)
    idle.sendall(b"GET /metr")
    started = time.monotonic()
    server.close()
    assert time.monotonic() - started < 1.5 * patience()
    assert not exporter_threads()
    assert not source.scrapes
    slow.close()
    idle.close()


def test_a_render_that_hangs_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    program = tmp_path / "hang.py"
    program.write_text(
        "import socket, threading\n"
        "from serve.fakes import FakeSource\n"
        "from esper_exporter.serve.server import MetricsServer\n"
        "source, begun = FakeSource(), threading.Event()\n"
        "source.before = lambda: (begun.set(), threading.Event().wait())\n"
        "server = MetricsServer(source, host='127.0.0.1', port=0)\n"
        "server.start()\n"
        "sock = socket.create_connection(('127.0.0.1', server.port))\n"
        "sock.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
        "begun.wait()\n"
    )
    path = os.pathsep.join([str(SOURCE), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_importing_the_server_loads_nothing_heavy() -> None:
    code = (
        "import sys, esper_exporter.serve.server; "
        "print([m for m in ('asyncio', 'ssl', 'h11', 'yaml', 'bcrypt', 'psutil')"
        " if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=20
    )
    assert done.stdout.strip() == b"[]"


# -- addresses ------------------------------------------------------------------------------


def test_a_taken_port_is_an_error_when_strict_and_names_its_holder(serve: Serve) -> None:
    port = serve().port
    with pytest.raises(PortTaken) as caught:
        serve(port=port, strict=True)
    assert f"port {port} on 127.0.0.1 is taken by this process itself (pid {os.getpid()})" in str(
        caught.value
    )


def test_another_process_that_holds_the_port_is_named(serve: Serve) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        with pytest.raises(PortTaken, match=rf"taken by pid {holder.pid} \("):
            serve(port=port, strict=True)
        holder.communicate(timeout=10)


def test_a_taken_port_is_a_warning_and_served_once_it_is_free(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = serve(port=port, limits=QUICK)
        assert (server.listening, server.port, server.url) == (False, None, None)
        wait_until(lambda: "is taken by this process itself" in caplog.text, "it warns")
        assert len(caplog.records) == 1
    wait_until(lambda: server.listening, "it listens")
    assert server.port == port
    assert request(f"{server.url}/metrics").status == 200


def test_a_server_that_waits_for_its_port_closes_cleanly(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        server = serve(port=holder.getsockname()[1], limits=QUICK)
        server.close()
    wait_until(lambda: not exporter_threads(), "who holds the port is no longer looked for")


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1", "x" * 300, "\ud800"])
def test_an_address_that_is_not_ours_stops_nothing_unless_strict(serve: Serve, host: str) -> None:
    assert not serve(host=host, limits=QUICK).listening
    with pytest.raises(ListenError, match="cannot listen on"):
        serve(host=host, strict=True)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_an_error(source: FakeSource, port: int) -> None:
    with pytest.raises(ValueError, match="port must lie between"):
        MetricsServer(source, host="", port=port)


def test_nothing_to_listen_on_is_an_error(source: FakeSource) -> None:
    with pytest.raises(ValueError, match="nothing to listen on"):
        MetricsServer(source, host="", port=None)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_is_served(serve: Serve, host: str) -> None:
    server = serve(host=host)
    assert server.url == f"http://[::1]:{server.port}"
    assert curl("-g", f"{server.url}/metrics").status == 200


@pytest.mark.parametrize("host", ["::", "[::]"])
def test_all_of_ipv6_takes_ipv4_as_well(serve: Serve, host: str) -> None:
    server = serve(host=host)
    assert server.url == f"http://[::1]:{server.port}"
    for address in ("[::1]", "127.0.0.1"):
        assert curl("-g", f"http://{address}:{server.port}/metrics").status == 200


@pytest.mark.parametrize("host", ["", "0.0.0.0", "localhost"])
def test_all_addresses_and_names_are_served(serve: Serve, host: str) -> None:
    server = serve(host=host)
    assert request(f"http://127.0.0.1:{server.port}/metrics").status == 200
    assert server.url is not None and request(f"{server.url}/metrics").status == 200


def test_a_unix_socket_is_served_beside_the_port_and_removed(
    serve: Serve, tmp_path: Path, source: FakeSource
) -> None:
    path = tmp_path / "esper.sock"
    server = serve(unix_socket=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert curl("--unix-socket", str(path), "http://x/metrics").body == source.body
    assert request(f"{server.url}/metrics").status == 200
    server.close()
    assert not path.exists()


def test_a_unix_socket_may_be_all_there_is(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "esper.sock"
    server = serve(port=None, unix_socket=path)
    assert (server.port, server.url) == (None, f"unix:{path}")
    assert curl("--unix-socket", str(path), "http://x/-/healthy").status == 200


def test_a_unix_socket_that_was_left_behind_is_replaced(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "esper.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    serve(port=None, unix_socket=path, strict=True)
    assert curl("--unix-socket", str(path), "http://x/metrics").status == 200


def test_a_unix_socket_in_use_and_a_file_are_left_alone(serve: Serve, tmp_path: Path) -> None:
    path, file = tmp_path / "esper.sock", tmp_path / "file"
    file.write_text("precious")
    serve(port=None, unix_socket=path)
    for taken in (path, file):
        with pytest.raises(PortTaken, match="is in use"):
            serve(port=None, unix_socket=taken, strict=True)
    assert curl("--unix-socket", str(path), "http://x/metrics").status == 200
    assert file.read_text() == "precious"


# -- forks ----------------------------------------------------------------------------------
