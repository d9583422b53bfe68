"""The servers of the trial: Prometheus, VictoriaMetrics, vmalert, vmagent, vmauth, as processes."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import yaml

from benchmarks.scrape import _free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus" / "remote-write.yml"


class TrialError(Exception):
    """A trial did not show what it should; the text says what."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Poll another process. Raises TrialError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TrialError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Server:
    """A process that answers on a port of the loopback. ``ready`` is a path that answers 200."""

    def __init__(self, name: str, folder: Path, ready: str) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = ready
        self._command: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        """Start it, or start it again as it was."""
        self._command = [*command] or self._command
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        wait_until(self.is_ready, f"{self.name} answers; see {self.folder / 'log'}")

    def is_ready(self) -> bool:
        """Whether it answers."""
        if self._process is not None and self._process.poll() is not None:
            tail = (self.folder / "log").read_text(errors="replace")[-800:]
            raise TrialError(f"{self.name} has ended: {tail}")
        try:
            with urllib.request.urlopen(f"{self.url}{self._ready}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it by SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def bytes(self, path: str, **parameters: str) -> bytes:
        """The body of an answer: to a POST with parameters, to a GET without. Raises TrialError
        for anything but 200."""
        data = urllib.parse.urlencode(parameters).encode() or None
        try:
            with urllib.request.urlopen(f"{self.url}{path}", data, timeout=300) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read(500).decode("utf-8", "replace")
            raise TrialError(f"{self.name}{path}: {error.code} {text}") from None

    def query(self, expression: str, moment: float | None = None) -> list[Any]:
        """The result of an instant query."""
        given = {"query": expression}
        if moment is not None:
            given["time"] = f"{moment:.3f}"
        result: list[Any] = orjson.loads(self.bytes("/api/v1/query", **given))["data"]["result"]
        return result

    def value(self, expression: str, moment: float | None = None) -> float:
        """The sum of an instant query's values."""
        return sum(float(each["value"][1]) for each in self.query(expression, moment))


def prometheus(
    program: str, folder: Path, name: str, cluster: str, targets: Path, options: dict[str, Any]
) -> Server:
    """A replica that scrapes the targets of a file, evaluates the rules, sends alerts to
    ``options["notify"]`` and samples to ``options["store"]`` (HOST:PORT), every
    ``options["interval"]`` seconds; the rules are evaluated every ``options["evaluate"]``.

    The store drops duplicates of series with the same labels, so ``replica`` is dropped on the
    way; series that rules record stay here, because vmalert records its own.
    """
    server = Server(name, folder, "/-/ready")
    every = f"{options['interval']}s"
    host, path = options["notify"].split("/", 1)
    config = {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": f"{options['evaluate']}s",
            "external_labels": {"cluster": cluster, "replica": name},
        },
        "rule_files": [f"{options['rules']}/*.yml"],
        "alerting": {
            "alert_relabel_configs": [{"regex": "replica", "action": "labeldrop"}],
            "alertmanagers": [{"path_prefix": f"/{path}", "static_configs": [{"targets": [host]}]}],
        },
        "scrape_configs": [scrape_config(targets)],
        "remote_write": [
            {
                "url": f"http://{options['store']}/api/v1/write",
                "queue_config": shipped_queue(),
                "write_relabel_configs": [
                    {"regex": "replica", "action": "labeldrop"},
                    {
                        "source_labels": ["__name__"],
                        "regex": ".*:.*|ALERTS.*",
                        "action": "drop",
                    },
                ],
            }
        ],
    }
    path_of_config = server.folder / "prometheus.yml"
    path_of_config.write_text(json.dumps(config))
    server.start(
        program,
        f"--config.file={path_of_config}",
        f"--storage.tsdb.path={server.folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{server.port}",
        # Snapshots: what a killed store lacks is copied from them.
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=6h",
        "--log.level=warn",
    )
    return server


def shipped_queue() -> dict[str, Any]:
    """How the shipped configuration queues what it sends."""
    shipped = yaml.safe_load(SHIPPED.read_text())
    found: dict[str, Any] = shipped["remote_write"][0]["queue_config"]
    return found


def scrape_config(targets: Path) -> dict[str, Any]:
    """A job whose targets' instance is the run's number."""
    return {
        "job_name": "esper",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}],
        "relabel_configs": [
            {
                "source_labels": ["__metrics_path__"],
                "regex": "/[^/]*/(.*)/metrics",
                "target_label": "instance",
            }
        ],
    }


def victoria_metrics(folder: Path, interval: int, **flags: str) -> Server:
    """A single-node VictoriaMetrics that keeps one sample of each ``interval`` (0: all)."""
    server = Server("store", folder, "/health")
    server.start(
        "victoria-metrics",
        f"-storageDataPath={server.folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{server.port}",
        "-retentionPeriod=2",
        "-search.latencyOffset=0s",
        "-search.maxUniqueTimeseries=2000000",
        "-search.maxSeries=2000000",
        "-memory.allowedPercent=20",
        "-search.maxConcurrentRequests=16",
        "-search.maxQueueDuration=60s",
        f"-dedup.minScrapeInterval={interval}s",
        *(f"-{name}={value}" for name, value in flags.items()),
    )
    return server


def vmalert(folder: Path, store: Server, rules: Path, notify: str, interval: int) -> Server:
    """A vmalert that evaluates the rules on the store and writes what they record back to it."""
    server = Server("vmalert", folder, "/health")
    server.start(
        "vmalert",
        f"-rule={rules}/*.yml",
        f"-datasource.url={store.url}",
        f"-remoteWrite.url={store.url}",
        f"-remoteRead.url={store.url}",
        f"-notifier.url=http://{notify}",
        f"-evaluationInterval={interval}s",
        f"-httpListenAddr=127.0.0.1:{server.port}",
        # Alertmanager takes an alert for another one when it has one label more.
        "-disableAlertgroupLabel",
    )
    return server


def vmagent(folder: Path, cluster: str, targets: Path, store: Server, interval: int) -> Server:
    """A vmagent in place of a cluster's Prometheus: it scrapes and sends on, and keeps nothing."""
    server = Server("vmagent", folder, "/health")
    config = {
        "global": {
            "scrape_interval": f"{interval}s",
            "scrape_timeout": f"{interval}s",
            "external_labels": {"cluster": cluster},
        },
        "scrape_configs": [
            {k: v for k, v in scrape_config(targets).items() if k != "file_sd_configs"}
            | {"file_sd_configs": [{"files": [str(targets)]}]}
        ],
    }
    (server.folder / "vmagent.yml").write_text(json.dumps(config))
    server.start(
        "vmagent",
        f"-promscrape.config={server.folder / 'vmagent.yml'}",
        f"-remoteWrite.url={store.url}/api/v1/write",
        f"-remoteWrite.tmpDataPath={server.folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{server.port}",
    )
    return server


def vmauth(folder: Path, store: Server, user: str, password: str) -> Server:
    """A vmauth in front of the store: one user, who may write."""
    server = Server("vmauth", folder, "/metrics")
    users = {"users": [{"username": user, "password": password, "url_prefix": store.url}]}
    (server.folder / "auth.yml").write_text(json.dumps(users))
    server.start(
        "vmauth",
        f"-auth.config={server.folder / 'auth.yml'}",
        f"-httpListenAddr=127.0.0.1:{server.port}",
    )
    return server


def write_targets(path: Path, port: int, cluster: str, runs: range) -> None:
    """The targets of a cluster's runs, for file_sd."""
    path.write_text(
        json.dumps(
            [
                {
                    "targets": [f"127.0.0.1:{port}"],
                    "labels": {"__metrics_path__": f"/{cluster}/{run}/metrics"},
                }
                for run in runs
            ]
        )
    )
