"""What a real Prometheus says a scrape takes: both sides scraped by the same server."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from prometheus_client import start_http_server

from benchmarks.content import OurPage, TheirPage
from benchmarks.measure import Result
from esper_exporter.metrics.exposition import OPENMETRICS, TEXT
from esper_exporter.serve.negotiation import MediaType
from esper_exporter.serve.page import LandingPage
from esper_exporter.serve.server import MetricsServer

SECONDS = 20


class _Source:
    """A page of 16,000 gauges behind the exporter's own server."""

    def __init__(self) -> None:
        self._page = OurPage()

    def render(self, media: MediaType, gzip: bool) -> bytes:
        from isal import igzip

        body = self._page.render(OPENMETRICS if media.format == "openmetrics" else TEXT)
        return bytes(igzip.compress(body, 1)) if gzip else body

    def landing(self) -> LandingPage:
        return LandingPage(version="bench", ready=True)

    def ready(self) -> bool:
        return True

    def scraped(self, *, seconds: float, size: int, format: str) -> None:
        return

    def needs_thread(self) -> bool:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _median_duration(server: str, job: str) -> float:
    query = f'quantile_over_time(0.5, scrape_duration_seconds{{job="{job}"}}[1m])'
    address = f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=5) as answer:
        return float(json.load(answer)["data"]["result"][0]["value"][1])


def serve_ours(port: Connection, end: Event) -> None:
    """The page on the exporter's server, in a process of its own."""
    server = MetricsServer(_Source(), host="127.0.0.1", port=0, strict=True)
    server.start()
    port.send(server.port)
    end.wait()
    server.close()


def serve_theirs(port: Connection, end: Event) -> None:
    """The same page on prometheus_client's server, in a process of its own."""
    page = TheirPage()
    number = _free_port()
    server, _ = start_http_server(number, addr="127.0.0.1", registry=page.registry)
    port.send(number)
    end.wait()
    server.shutdown()


def run(rounds: int) -> list[Result]:
    program = shutil.which("prometheus")
    if program is None:
        return [Result("scrape by Prometheus", 0.0, None, None, "s", note="not installed")]
    spawn = multiprocessing.get_context("spawn")
    end = spawn.Event()
    targets: dict[str, int] = {}
    served = []
    for name, serve in (("ours", serve_ours), ("theirs", serve_theirs)):
        here, there = spawn.Pipe(duplex=False)
        process = spawn.Process(target=serve, args=(there, end), daemon=True)
        process.start()
        targets[name] = here.recv()
        served.append(process)
    try:
        one, other = _scraped(program, targets, SECONDS if rounds > 2 else SECONDS / 2)
    finally:
        end.set()
        for process in served:
            process.join(10)
    return [
        Result(
            "scrape by Prometheus",
            one,
            other,
            other / one,
            "s",
            10,
            note="scrape_duration_seconds, 16,000 gauges, gzip; a process each, one Prometheus",
        )
    ]


def _scraped(program: str, targets: dict[str, int], seconds: float) -> tuple[float, float]:
    """Median scrape durations of both targets, as a Prometheus of our own tells them."""
    jobs = "".join(
        f"- {{job_name: {name}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        for name, port in targets.items()
    )
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 2s, scrape_timeout: 2s}\nscrape_configs:\n" + jobs
        )
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
        )
        try:
            time.sleep(seconds)
            server = f"http://127.0.0.1:{port}"
            return _median_duration(server, "ours"), _median_duration(server, "theirs")
        finally:
            process.terminate()
            process.wait(10)
