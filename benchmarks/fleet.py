"""A simulated fleet: the pages of hundreds of runs, from one process, in a real Prometheus.

    python -m benchmarks.fleet [--runs N] [--interval S] [--seconds S]

The pages are those of a recorded training at many moments; each run begins at another one, so
values change from scrape to scrape as they do in a training. What comes out is what docs/SCALE.md
reckons with: series, bytes a sample, memory a series, and what scraping costs. Bounded in time by
``--seconds``, in memory by ``--runs`` (about 2 kB a series in Prometheus).
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.scrape import _free_port
from esper_exporter.demo.bundled import recording
from esper_exporter.exporter import Exporter
from esper_exporter.metrics.cardinality import series_of_run

RECORDING = "run1"
RUN_ID = "recorded"
MOMENTS = 60
ENVS, SLOTS = 2, 3
"""The size of the recorded training."""


def pages() -> list[bytes]:
    """Pages of the recorded training at even distances; at the first all its envs are there."""
    with recording(RECORDING) as path:
        lines = gzip.decompress(path.read_bytes()).splitlines()
    exporter = Exporter(run_id=RUN_ID, state_dir="off", watch_process=False)
    taken = []
    first = len(lines) // 4
    due = {first + (len(lines) - first) * k // MOMENTS for k in range(1, MOMENTS + 1)}
    for number, line in enumerate(lines, start=1):
        exporter.emit_line(line)
        if number in due:
            taken.append(exporter.render())
    return taken


@contextmanager
def serving(taken: list[bytes]) -> Iterator[int]:
    """Serve /RUN/metrics for any number of runs; the port."""
    asked: dict[int, int] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            run = int(self.path.split("/")[1])
            count = asked[run] = asked.get(run, run) + 1
            page = taken[count % len(taken)].replace(
                f'run_id="{RUN_ID}"'.encode(), f'run_id="run-{run}"'.encode()
            )
            body = gzip.compress(page, 1)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, *_: object) -> None:
            """Prometheus hangs up when it is ended."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Server:
    """A Prometheus whose data lie in a folder."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, data: bytes | None = None, **parameters: str) -> object:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}{path}?{query}", data, timeout=120) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float:
        found = self.get("/api/v1/query", query=expression)["result"]  # type: ignore[index]
        return float(found[0]["value"][1]) if found else float("nan")


def measure(program: str, runs: int, interval: float, seconds: float) -> dict[str, float]:
    """Let Prometheus scrape the fleet for a while; what it then knows of itself."""
    with tempfile.TemporaryDirectory() as name, serving(pages()) as port:
        folder = Path(name)
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{k}/metrics"}}
            for k in range(runs)
        ]
        (folder / "targets.json").write_text(json.dumps(targets))
        own = _free_port()
        config = {
            "global": {"scrape_interval": f"{interval:g}s", "scrape_timeout": f"{interval:g}s"},
            "scrape_configs": [
                {
                    "job_name": "esper",
                    "file_sd_configs": [{"files": [str(folder / "targets.json")]}],
                    "relabel_configs": [
                        {
                            "source_labels": ["__metrics_path__"],
                            "regex": "/(.*)/metrics",
                            "target_label": "instance",
                        }
                    ],
                },
                {
                    "job_name": "prometheus",
                    "static_configs": [{"targets": [f"127.0.0.1:{own}"]}],
                },
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
                "--web.enable-admin-api",
                "--log.level=error",
            ]
        )
        try:
            time.sleep(seconds)
            server = _Server(f"http://127.0.0.1:{own}")
            window = f"{int(seconds / 2)}s"
            cpu = f'rate(process_cpu_seconds_total{{job="prometheus"}}[{window}])'
            appended = f"rate(prometheus_tsdb_head_samples_appended_total[{window}])"
            found = {
                "targets up": server.value('sum(up{job="esper"})'),
                "series a run": server.value('avg(scrape_samples_scraped{job="esper"})'),
                "series": server.value("prometheus_tsdb_head_series"),
                "samples a second": server.value(f"sum({appended})"),
                "seconds a scrape": server.value('avg(scrape_duration_seconds{job="esper"})'),
                "cores used": server.value(cpu),
                "resident bytes a series": server.value(
                    'process_resident_memory_bytes{job="prometheus"} / prometheus_tsdb_head_series'
                ),
            }
            # A block of all there is so far, as it would lie on disk.
            server.get("/api/v1/admin/tsdb/snapshot", b"")
        finally:
            process.terminate()
            process.wait(60)
        metas = list(folder.glob("data/snapshots/*/*/meta.json"))
        reported = [json.loads(path.read_text())["stats"] for path in metas]
        samples = sum(stats["numSamples"] for stats in reported)
        chunks = sum(p.stat().st_size for m in metas for p in (m.parent / "chunks").iterdir())
        index = sum((m.parent / "index").stat().st_size for m in metas)
        return found | {
            "samples a series": samples / found["series"],
            "chunk bytes a sample": chunks / samples,
            "index bytes a series": index / found["series"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds from scrape to scrape")
    parser.add_argument("--seconds", type=float, default=150.0, help="how long to scrape")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.error("prometheus is not installed: apt-get install prometheus")
    found = measure(program, options.runs, options.interval, options.seconds)
    print(f"a run of {ENVS} envs × {SLOTS} slots has at most {series_of_run(ENVS, SLOTS):,} series")
    for what, value in found.items():
        print(f"{what:>24}  {value:,.4g}")


if __name__ == "__main__":
    main()
