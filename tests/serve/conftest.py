"""What the tests of the server share: a source, and servers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esper_exporter.serve.server import MetricsServer
from serve.fakes import FakeSource
from serve.secured import House

Serve = Callable[..., MetricsServer]


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "web")


@pytest.fixture
def serve(source: FakeSource) -> Iterator[Serve]:
    """Starts a server of ``source``, by default on a free loopback port."""
    servers: list[MetricsServer] = []

    def start(**options: object) -> MetricsServer:
        arguments = {"host": "127.0.0.1", "port": 0, **options}
        server = MetricsServer(source, **arguments)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()
