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
from statistics import median

from prometheus_client import start_http_server

from benchmarks.content import OurPage, TheirPage
from benchmarks.measure import Result
from esper_exporter.metrics.exposition import OPENMETRICS, TEXT
from esper_exporter.serve.interfaces import Served, Visit
from esper_exporter.serve.messages import Route
from esper_exporter.serve.negotiation import MediaType
from esper_exporter.serve.server import MetricsServer

TURNS = 3
SCRAPES = 8
FIRST_SCRAPES = 2
TURN_SECONDS_AT_MOST = 60
INTERVAL_SECONDS = 1


class _Source:
    """A page of 16,000 gauges behind the exporter's own server."""

    def __init__(self) -> None:
        self._page = OurPage()

    def part(self, _query: str) -> None:
        return None

    def render(self, media: MediaType, gzip: bool) -> bytes:
        from isal import igzip

        body = self._page.render(OPENMETRICS if media.format == "openmetrics" else TEXT)
        return bytes(igzip.compress(body, 1)) if gzip else body

    def page_routes(self) -> dict[str, Route]:
        return {}

    def ready(self) -> bool:
        return True

    def visited(self, visit: Visit) -> None:
        return

    def served(self, page: Served) -> None:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _durations(server: str, job: str) -> list[float]:
    """All scrape durations of a target so far."""
    query = urllib.parse.urlencode({"query": f'scrape_duration_seconds{{job="{job}"}}[30m]'})
    with urllib.request.urlopen(f"{server}/api/v1/query?{query}", timeout=5) as answer:
        found = json.load(answer)["data"]["result"]
    # A series a spell that the target was there.
    return [float(value) for series in found for _, value in series["values"]]


def _turn(server: str, job: str, scrapes: int) -> list[float]:
    """The durations of the next scrapes of a target, without the first ones, in which Prometheus
    meets its series."""
    before = None
    give_up = time.monotonic() + TURN_SECONDS_AT_MOST
    while time.monotonic() < give_up:
        try:
            reported = _durations(server, job)
        except OSError:  # it is still starting
            reported = []
        else:
            before = len(reported) if before is None else before
            if len(reported) >= before + FIRST_SCRAPES + scrapes:
                return reported[before + FIRST_SCRAPES :]
        time.sleep(INTERVAL_SECONDS / 2)
    raise TimeoutError(f"Prometheus has not scraped {job} {scrapes} times")


def serve_ours(port: Connection, end: Event) -> None:
    """The page on the exporter's server, in a separate process."""
    server = MetricsServer(_Source(), host="127.0.0.1", port=0, strict=True)
    server.start()
    port.send(server.port)
    end.wait()
    server.close()


def serve_theirs(port: Connection, end: Event) -> None:
    """The same page on prometheus_client's server, in a separate process."""
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
        one, other = _scraped(program, targets, *((TURNS, SCRAPES) if rounds > 2 else (1, 1)))
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


def _scraped(
    program: str, targets: dict[str, int], turns: int, scrapes: int
) -> tuple[float, float]:
    """Median scrape durations of both targets, as our own Prometheus measures them.

    They are scraped by turns, never both at once: a page that is being rendered on the one core
    would slow the other's scrape down.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: {INTERVAL_SECONDS}s, scrape_timeout: 1s}}\n"
            "scrape_configs:\n"
            + "".join(
                f"- {{job_name: {name}, file_sd_configs: [{{files: [{folder}/{name}.json]}}]}}\n"
                for name in targets
            )
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
        reported: dict[str, list[float]] = {name: [] for name in targets}
        try:
            for turn in list(targets) * turns:
                for name, number in targets.items():
                    shown = [{"targets": [f"127.0.0.1:{number}"]}] if name == turn else []
                    beside = Path(folder) / f"{name}.new"
                    beside.write_text(json.dumps(shown))
                    beside.replace(Path(folder) / f"{name}.json")
                reported[turn] += _turn(f"http://127.0.0.1:{port}", turn, scrapes)
            one, other = (median(durations) for durations in reported.values())
            return one, other
        finally:
            process.terminate()
            process.wait(10)
