"""Processes learn from a share who serves it now, never who did before."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.agent.share_claim import serving_address
from esper_exporter.agent.share_directory import AGENT_LOCK, make_share
from esper_exporter.serve.server import MetricsServer


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A share whose server was killed, so that its address is still there."""
    share = tmp_path / "share"
    make_share(share)
    (share / AGENT_LOCK).write_text("http://127.0.0.1:1")
    return share


def agent_of(share: Path, port: int = 0) -> NodeAgent:
    return NodeAgent(
        AgentSettings(shares=[share], port=port, strict=False, gpu_vitals="off", host_vitals="off")
    )


def test_the_address_is_that_of_the_server_while_it_serves(share: Path) -> None:
    assert serving_address(share) is None
    agent = agent_of(share)
    agent.start()
    assert serving_address(share) == agent.server.url is not None
    agent.close()
    assert serving_address(share) is None
    assert (share / AGENT_LOCK).read_text() == ""


def test_a_server_that_waits_for_its_port_has_no_address(share: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        agent = agent_of(share, holder.getsockname()[1])
        agent.start()
        assert serving_address(share) is None
        agent.close()


def test_a_server_that_starts_has_no_address_yet(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    start = MetricsServer.start

    def watched(server: MetricsServer) -> None:
        seen.append(serving_address(share))
        start(server)

    monkeypatch.setattr(MetricsServer, "start", watched)
    agent = agent_of(share)
    agent.start()
    agent.close()
    assert seen == [None]
