"""The whole scene: four nodes, two Prometheus, Alertmanager, the store and a receiver."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.chaos.disks import Disk
from benchmarks.chaos.messages import Receiver
from benchmarks.chaos.nodes import Clock, Node
from benchmarks.chaos.servers import Server, alertmanager, prometheus, store

ROOT = Path(__file__).parents[2]
DISK_MEGABYTES = 16
RUNS = {
    "a": ("killed", "nan-and-killed", "agent-away", "steady-a"),
    "b": (
        *("raises", "nan", "vanished", "no-prometheus", "no-alertmanager", "full-share"),
        "steady-b",
    ),
    "c": ("slow-clock", "fast-clock", "steady-c"),
    "d": ("full-disk",),
}
"""The runs of each node; those called steady meet no fault."""
WRAPPED = "ad"
"""The nodes whose trainings run under ``esper-exporter run``."""
WITH_VITALS = "full-disk"
"""The run that reports the disks of its directories."""


@dataclass
class Fleet:
    """All that a fault can be made in."""

    interval: float
    """Seconds from scrape to scrape, and from evaluation to evaluation."""
    nodes: dict[str, Node]
    replicas: dict[str, Server]
    alertmanager: Server
    store: Server
    receiver: Receiver

    def node_of(self, run_id: str) -> Node:
        """Where a run is."""
        return next(node for node in self.nodes.values() if run_id in node.trainings)


def compose_options() -> list[str]:
    """The options of Alertmanager in the shipped docker-compose.yml, but for its files."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return [
        option
        for option in services["alertmanager"]["command"]
        if not option.startswith(("--config.file", "--storage.path"))
    ]


@contextmanager
def fleet(interval: float) -> Iterator[Fleet]:
    """Start everything, and end it."""
    with tempfile.TemporaryDirectory(prefix="esper-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        nodes = {}
        for letter, runs in RUNS.items():
            place = folder / f"node-{letter}"
            place.mkdir()
            node = Node(
                letter,
                place,
                share=Disk(place / "shm", DISK_MEGABYTES),
                disk=Disk(place / "disk", DISK_MEGABYTES),
                clock=Clock(place / "clock") if letter == "c" else None,
                wrapped=letter in WRAPPED,
            )
            stack.callback(node.close)
            nodes[letter] = node
            node.start_agent()
            for run_id in runs:
                node.train(run_id, vitals=run_id == WITH_VITALS)
        receiver = Receiver()
        stack.callback(receiver.close)
        keeps = store(folder)
        sends = alertmanager(folder, receiver, compose_options())
        sinks = {"alertmanager": f"127.0.0.1:{sends.port}", "store": keeps.url}
        targets = [node.address for node in nodes.values()]
        replicas = {
            replica: prometheus(folder, replica, targets, interval, sinks) for replica in "xy"
        }
        for server in (keeps, sends, *replicas.values()):
            stack.callback(server.close)
            server.start()
        yield Fleet(interval, nodes, replicas, sends, keeps, receiver)
