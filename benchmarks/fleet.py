"""A simulated fleet: the pages of thousands of runs, from one process, in a real Prometheus.

    python -m benchmarks.fleet [--targets N ...] [--slim N ...] [--json FILE]

The pages are those of a recorded training at many moments; each run begins at another one, so
values change from scrape to scrape as they do in a training. Prometheus evaluates the shipped rules
meanwhile, and is asked the fleet board's queries in the end. ``--slim`` takes pages with only the
families that the rules use, a quarter of the series, so that more runs find room. What comes out is
what docs/SCALE.md reckons with: `benchmarks.scale_model` fits the laws of growth and prints them
beside it. About 3 kB of memory a series in Prometheus; 90 s for each size below 1,000 runs, 150 s
from there on. Durations mean something on a quiet machine only; CPU and bytes on any.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from benchmarks.page_server import serving
from benchmarks.scrape import _free_port
from esper_exporter.demo.bundled import recording
from esper_exporter.exporter import Exporter

RECORDING = "run1"
RUN_ID = "recorded"
MOMENTS = 60
ROOT = Path(__file__).parents[1]
RULES = sorted((ROOT / "alerts" / "rules").glob("*.yml"))
BOARD = ROOT / "grafana" / "dashboards" / "esper-fleet.json"
RULES_EVERY = 15.0
"""Seconds between two evaluations, as shipped."""
LARGE = 1000
"""Targets from which a scrape every 15 s is what this machine can do."""


@dataclass(frozen=True)
class Measured:
    """What Prometheus knew of itself at one size."""

    targets: int
    slim: bool
    interval: float
    """Seconds from scrape to scrape."""
    up: float
    page_series: float
    """Samples a scrape."""
    page_bytes: float
    """Compressed, as sent."""
    series: float
    samples: float
    """In the head, of all series."""
    samples_per_second: float
    memory_bytes: float
    cores: float
    rules_samples: float
    """What all rules read, once."""
    rules_seconds: float
    query_samples: float
    """What the costliest query of the fleet board reads, at one moment."""
    query_seconds: float
    wal_bytes: float
    chunk_bytes: float
    index_bytes: float


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


def slim(page: bytes) -> bytes:
    """A page with only the families that the rules use."""
    used = set(re.findall(r"\besper_\w+", "".join(path.read_text() for path in RULES)))
    kept = [
        line
        for line in page.decode().splitlines(keepends=True)
        if line.startswith("#") or re.match(r"\w+", line)[0] in used  # type: ignore[index]
    ]
    return "".join(kept).encode()


def board_queries() -> set[str]:
    """The queries of the fleet board, for all runs."""
    board = json.loads(BOARD.read_text())
    expressions = {
        target["expr"]
        for row in board["panels"]
        for panel in [row, *row.get("panels", [])]
        for target in panel.get("targets", [])
    }
    values = {"__range": "1h", "__interval": "1m", "__rate_interval": "1m"}
    return {
        re.sub(r"\$\{?(\w+)\}?", lambda name: values.get(name[1], ".*"), each)
        for each in expressions
    }


def rule_queries() -> list[str]:
    """The expressions of all shipped rules."""
    return [
        rule["expr"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


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

    def samples(self, expression: str) -> float:
        """The samples that a query reads."""
        found = self.get("/api/v1/query", query=expression, stats="all")
        return float(found["stats"]["samples"]["totalQueryableSamples"])  # type: ignore[index]

    def cost(self, expression: str) -> tuple[float, float]:
        """The samples that a query reads, and the seconds it takes."""
        began = time.perf_counter()
        samples = self.samples(expression)
        return samples, time.perf_counter() - began


def configuration(folder: Path, targets: int, port: int, own: int, interval: float) -> Path:
    """Prometheus' configuration: each target a run, which is named when a series is first seen."""
    found = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{k}/metrics"}}
        for k in range(targets)
    ]
    (folder / "targets.json").write_text(json.dumps(found))
    name = {"source_labels": ["__metrics_path__"], "regex": "/(.*)/metrics"}
    config = {
        "global": {
            "scrape_interval": f"{interval:g}s",
            "scrape_timeout": f"{min(interval, 10):g}s",
            "evaluation_interval": f"{RULES_EVERY:g}s",
        },
        "rule_files": [str(path) for path in RULES],
        "scrape_configs": [
            {
                "job_name": "esper",
                "file_sd_configs": [{"files": [str(folder / "targets.json")]}],
                "relabel_configs": [name | {"target_label": "instance"}],
                "metric_relabel_configs": [
                    {
                        "source_labels": ["run_id", "instance"],
                        "regex": f"{RUN_ID};(.*)",
                        "replacement": "run-$1",
                        "target_label": "run_id",
                    }
                ],
            },
            {
                "job_name": "prometheus",
                "scrape_interval": "5s",
                "scrape_timeout": "5s",
                "static_configs": [{"targets": [f"127.0.0.1:{own}"]}],
            },
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))
    return path


def measure(
    program: str, targets: int, is_slim: bool, taken: list[bytes], interval: float, seconds: int
) -> Measured:
    """Let Prometheus scrape the fleet for a while; what it then knows of itself."""
    with tempfile.TemporaryDirectory() as name, serving(taken) as (port, page_bytes):
        folder, own = Path(name), _free_port()
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration(folder, targets, port, own, interval)}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
                "--web.enable-admin-api",
                "--log.level=error",
            ]
        )
        try:
            time.sleep(seconds)
            server = _Server(f"http://127.0.0.1:{own}")
            # The first scrapes make the series; what follows is how it goes on.
            window = f"{seconds * 2 // 3 // 5 * 5}s"
            evaluated = f"rate(prometheus_rule_evaluation_duration_seconds_sum[{window}])"
            appended = f"rate(prometheus_tsdb_head_samples_appended_total[{window}])"
            found = {
                "up": server.value('sum(up{job="esper"})'),
                "page_series": server.value('avg(scrape_samples_scraped{job="esper"})'),
                "series": server.value("prometheus_tsdb_head_series"),
                "samples_per_second": server.value(f"sum({appended})"),
                "memory_bytes": server.value('process_resident_memory_bytes{job="prometheus"}'),
                "cores": server.value(
                    f'rate(process_cpu_seconds_total{{job="prometheus"}}[{window}])'
                ),
                "rules_seconds": server.value(f"sum({evaluated})") * RULES_EVERY,
            }
            samples, slowest = max(server.cost(each) for each in board_queries())
            found |= {"query_samples": samples, "query_seconds": slowest}
            found["rules_samples"] = sum(server.samples(each) for each in rule_queries())
            wal = sum(path.stat().st_size for path in (folder / "data" / "wal").glob("0*"))
            # A block of all there is so far, as it would lie on disk.
            server.get("/api/v1/admin/tsdb/snapshot", b"")
        finally:
            process.terminate()
            process.wait(120)
        metas = list(folder.glob("data/snapshots/*/*/meta.json"))
        stats = [json.loads(path.read_text())["stats"] for path in metas]
        return Measured(
            targets=targets,
            slim=is_slim,
            interval=interval,
            page_bytes=page_bytes,
            samples=float(sum(each["numSamples"] for each in stats)),
            wal_bytes=float(wal),
            chunk_bytes=float(
                sum(p.stat().st_size for m in metas for p in (m.parent / "chunks").iterdir())
            ),
            index_bytes=float(sum((m.parent / "index").stat().st_size for m in metas)),
            **found,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--targets", type=int, nargs="*", default=[10, 100, 1000], metavar="N")
    parser.add_argument("--slim", type=int, nargs="*", default=[5000], metavar="N")
    parser.add_argument("--interval", type=float, metavar="S", help="5, from 1,000 targets on 15")
    parser.add_argument("--seconds", type=int, metavar="S", help="90, from 1,000 targets on 150")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add what was measured to FILE")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.error("prometheus is not installed: apt-get install prometheus")
    whole = pages()
    sizes = [(n, False) for n in options.targets] + [(n, True) for n in options.slim]
    for targets, is_slim in sizes:
        taken = [slim(page) for page in whole] if is_slim else whole
        interval, seconds = (15.0, 150) if targets >= LARGE else (5.0, 90)
        interval, seconds = options.interval or interval, options.seconds or seconds
        found = asdict(measure(program, targets, is_slim, taken, interval, seconds))
        print(" ".join(f"{what}={value:,.5g}" for what, value in found.items()), flush=True)
        if options.json is not None:
            keep(options.json, found)


def keep(path: Path, found: dict[str, float]) -> None:
    """Put one size in the place of what the file has of it."""
    kept = json.loads(path.read_text())["sizes"] if path.exists() else []
    kept = [
        one for one in kept if (one["targets"], one["slim"]) != (found["targets"], found["slim"])
    ]
    report = {"when": f"{datetime.now(UTC):%Y-%m-%d}", "sizes": [*kept, found]}
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
