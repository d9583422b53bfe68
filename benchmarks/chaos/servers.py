"""The servers around the nodes: two Prometheus, Alertmanager, a store. Each can be killed."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos.messages import Receiver
from benchmarks.death_alerts import ALERTS

# benchmarks.death_alerts puts the tests on the path.
from support.alertmanager import shipped
from support.ports import free_port
from support.programs import end, program, wait_until

PATIENCE = 120.0
"""Seconds until a server must answer, on a busy machine."""


@dataclass
class Server:
    """A program with a health page."""

    name: str
    folder: Path
    command: Sequence[str]
    port: int
    health: str
    process: subprocess.Popen[bytes] | None = None
    outages: list[list[float]] = field(default_factory=list)
    """When it was away: from, to, in seconds since the epoch."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._answers, f"{self.name} answers", PATIENCE, every=0.2)
        if self.outages:
            self.outages[-1][1] = time.time()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.health}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.outages.append([time.time(), float("inf")])
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            end(self.process)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **parameters: object) -> bytes:
        """The body of an answer."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=60) as answer:
            body: bytes = answer.read()
            return body

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query in PromQL."""
        found = json.loads(self.get("/api/v1/query", query=expression))
        result: list[dict[str, Any]] = found["data"]["result"]
        return result


def store(folder: Path) -> Server:
    """VictoriaMetrics, which takes remote write."""
    port = free_port()
    command = [
        program("victoria-metrics"),
        f"-storageDataPath={folder / 'store'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=1",
        "-memory.allowedBytes=256MB",
        "-loggerLevel=WARN",
    ]
    return Server("store", folder, command, port, "/health")


def alertmanager(folder: Path, receiver: Receiver, options: Sequence[str]) -> Server:
    """Alertmanager with the shipped configuration and options; only the receivers have addresses.

    As in ``receivers.example.yml``, what is latched and the dead man's switch send no end.
    """
    port = free_port()
    config = shipped()
    for each in config["receivers"]:
        ends = each["name"] in ("team", "on-call")
        each["webhook_configs"] = [
            {"url": f"{receiver.url}/{each['name']}", "send_resolved": ends},
        ]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *options,
    ]
    return Server("alertmanager", folder, command, port, "/-/ready")


def prometheus(
    folder: Path, replica: str, targets: Sequence[str], interval: float, sinks: dict[str, str]
) -> Server:
    """One of two equal Prometheus, told apart by the label replica, which no alert carries.

    ``sinks`` has the addresses of Alertmanager (``alertmanager``) and of the store (``store``).
    """
    port = free_port()
    every = f"{interval:g}s"
    config = {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every if interval < 10 else "10s",
            "evaluation_interval": every,
            "external_labels": {"cluster": "chaos", "replica": replica},
        },
        "rule_files": [str(path) for path in sorted((ALERTS / "rules").glob("*.yml"))],
        "alerting": {
            "alert_relabel_configs": [{"regex": "replica", "action": "labeldrop"}],
            "alertmanagers": [{"static_configs": [{"targets": [sinks["alertmanager"]]}]}],
        },
        "scrape_configs": [
            {"job_name": "esper", "static_configs": [{"targets": list(targets)}]},
        ],
        "remote_write": [{"url": f"{sinks['store']}/api/v1/write"}],
    }
    name = f"prometheus-{replica}"
    (folder / f"{name}.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={folder / f'{name}.yml'}",
        f"--storage.tsdb.path={folder / name}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    return Server(name, folder, command, port, "/-/ready")
