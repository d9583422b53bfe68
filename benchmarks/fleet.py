"""A simulated fleet: the pages of thousands of runs, from one process, in a real Prometheus.

    python -m benchmarks.fleet [--targets N ...] [--slim N ...] [--dense N] [--json FILE]

The pages are those of a recorded training at many moments; each run begins at another one, so
values change from scrape to scrape as they do in a training. Prometheus evaluates the shipped rules
meanwhile, and is asked the fleet board's queries in the end. ``--slim`` takes pages with only the
families that the rules use, a quarter of the series, so that more runs find room. ``--dense``
scrapes some runs every second meanwhile, until chunks are full, for the bytes of a sample. What
comes out is what docs/SCALE.md reckons with: `benchmarks.scale_model` fits the laws of growth and
`benchmarks.scale_document` prints them beside it. About 4 kB of memory a series in Prometheus; two
minutes for each size below 1,000 runs, three from there on, seven for 5,000. Durations mean
something on a quiet machine only: what else the machine did is measured, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
LARGE, HUGE = 1000, 3000
"""Targets from which a machine of two cores can do a scrape every 15 s, and rules every minute."""
BYTES = 6000
"""Of memory that a series of a page needs at most, with those that rules record of it."""
DENSE_INTERVAL, DENSE_SECONDS = 1.0, 180


@dataclass(frozen=True)
class Measured:
    """What Prometheus knew of itself at one size."""

    targets: int
    slim: bool
    interval: float
    """Seconds from scrape to scrape."""
    rules_every: float
    """Seconds from evaluation to evaluation."""
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
    """The most that was resident."""
    cores: float
    other_cores: float
    """What everything but Prometheus took of the machine meanwhile."""
    evaluated: float
    """How often all rules were evaluated in 15 s; less than planned on a machine that is busy."""
    rules_samples: float
    """What all rules read, once."""
    rules_seconds: float
    """How long all rules take, once."""
    board_samples: float
    """What all queries of the fleet board read, at one moment."""
    query_seconds: float
    """How long the longest of them takes."""
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
        self.moment = ""
        """What is asked for, Unix seconds; empty: now."""

    def get(self, path: str, data: bytes | None = None, **parameters: str) -> object:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}{path}?{query}", data, timeout=120) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float:
        found = self.get("/api/v1/query", query=expression, **self._time())["result"]  # type: ignore[index]
        return float(found[0]["value"][1]) if found else float("nan")

    def samples(self, expression: str) -> float:
        """The samples that a query reads."""
        found = self.get("/api/v1/query", query=expression, stats="all", **self._time())
        return float(found["stats"]["samples"]["totalQueryableSamples"])  # type: ignore[index]

    def _time(self) -> dict[str, str]:
        return {"time": self.moment} if self.moment else {}

    def cost(self, expression: str) -> tuple[float, float]:
        """The samples that a query reads, and the seconds it takes."""
        began = time.perf_counter()
        samples = self.samples(expression)
        return samples, time.perf_counter() - began


def configuration(
    folder: Path, targets: int, port: int, own: int, interval: float, rules_every: float
) -> Path:
    """Prometheus' configuration: each target a run, which is named when a series is first seen.

    Without rules where ``rules_every`` is 0.
    """
    found = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{k}/metrics"}}
        for k in range(targets)
    ]
    if not (folder / "targets.json").exists():  # Prometheus reads it when it changes.
        (folder / "targets.json").write_text(json.dumps(found))
    name = {"source_labels": ["__metrics_path__"], "regex": "/(.*)/metrics"}
    config = {
        "global": {
            "scrape_interval": f"{interval:g}s",
            "scrape_timeout": f"{min(interval, 10):g}s",
            "evaluation_interval": f"{rules_every or RULES_EVERY:g}s",
        },
        "rule_files": [str(path) for path in RULES] if rules_every else [],
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


def available_bytes() -> float:
    """Memory that is not in use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def busy_seconds() -> float:
    """CPU seconds that the machine has been busy, of all cores."""
    line, *_ = Path("/proc/stat").read_text().splitlines()
    user, nice, system, _, _, irq, softirq, stolen = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def measure(
    program: str, targets: int, is_slim: bool, taken: list[bytes], interval: float, seconds: int
) -> Measured:
    """Let Prometheus scrape the fleet for a while; what it then knows of itself."""
    rules_every = 4 * RULES_EVERY if targets >= HUGE else RULES_EVERY
    # The first scrapes make the series; what follows is how it goes on, in whole evaluations.
    window = int(seconds * 2 / 3 / rules_every) * int(rules_every)
    with tempfile.TemporaryDirectory() as name, serving(taken) as (port, page_bytes):
        folder, own = Path(name), _free_port()
        config = configuration(folder, targets, port, own, interval, rules_every)
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
                "--web.enable-admin-api",
                "--log.level=error",
            ],
            # As Prometheus has it by itself from 2.53 on.
            env={**os.environ, "GOGC": "75"},
        )
        try:
            time.sleep(seconds - window)
            busy = busy_seconds()
            time.sleep(window)
            busy = (busy_seconds() - busy) / window
            server = _Server(f"http://127.0.0.1:{own}")
            found = counted(server, window)
            found["rules_seconds"] *= rules_every
            # What is asked next is asked of this moment, without evaluations beside it.
            server.moment = f"{time.time():.3f}"
            configuration(folder, targets, port, own, interval, 0.0)
            process.send_signal(signal.SIGHUP)
            costs = [server.cost(each) for each in board_queries()]
            found["board_samples"] = sum(samples for samples, _ in costs)
            found["query_seconds"] = max(taken for _, taken in costs)
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
            rules_every=rules_every,
            other_cores=busy - found["cores"],
            page_bytes=page_bytes,
            samples=float(sum(each["numSamples"] for each in stats)),
            wal_bytes=float(wal),
            chunk_bytes=float(
                sum(p.stat().st_size for m in metas for p in (m.parent / "chunks").iterdir())
            ),
            index_bytes=float(sum((m.parent / "index").stat().st_size for m in metas)),
            **found,
        )


def counted(server: _Server, window: int) -> dict[str, float]:
    """What Prometheus knows of itself: of the last ``window`` seconds, and now."""
    own = '{job="prometheus"}'
    return {
        "up": server.value('sum(up{job="esper"})'),
        "page_series": server.value('avg(scrape_samples_scraped{job="esper"})'),
        "series": server.value(f"max_over_time(prometheus_tsdb_head_series[{window}s])"),
        "samples_per_second": server.value(
            f"sum(rate(prometheus_tsdb_head_samples_appended_total[{window}s]))"
        ),
        "memory_bytes": server.value(
            f"max_over_time(process_resident_memory_bytes{own}[{window}s])"
        ),
        "cores": server.value(f"rate(process_cpu_seconds_total{own}[{window}s])"),
        "evaluated": RULES_EVERY
        / len(rule_queries())
        * server.value(f"sum(rate(prometheus_rule_evaluations_total[{window}s]))"),
        "rules_seconds": server.value(
            f"sum(rate(prometheus_rule_evaluation_duration_seconds_sum[{window}s]))"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--targets", type=int, nargs="*", default=[10, 100, 1000], metavar="N")
    parser.add_argument("--slim", type=int, nargs="*", default=[5000], metavar="N")
    parser.add_argument("--dense", type=int, default=10, metavar="N", help="0: none")
    parser.add_argument("--interval", type=float, metavar="S", help="5, from 1,000 targets on 15")
    parser.add_argument("--seconds", type=int, metavar="S", help="90, from 1,000 targets on more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add what was measured to FILE")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.error("prometheus is not installed: apt-get install prometheus")
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    whole = pages()
    with ThreadPoolExecutor(1) as beside:
        dense = None
        if options.dense:
            arguments = (program, options.dense, False, whole, DENSE_INTERVAL, DENSE_SECONDS)
            dense = beside.submit(measure, *arguments)
        sizes = [(n, False) for n in options.targets] + [(n, True) for n in options.slim]
        for targets, is_slim in sizes:
            taken = [slim(page) for page in whole] if is_slim else whole
            series = sum(not line.startswith(b"#") for line in taken[-1].splitlines())
            needed = targets * series * BYTES
            if needed > available_bytes():
                print(f"· not run: {targets:,} runs, which need {needed / 1e9:.0f} GB of memory")
                continue
            interval, seconds = 5.0, 90
            if targets >= LARGE:
                interval, seconds = 15.0, 210 if targets >= HUGE else 150
            interval, seconds = options.interval or interval, options.seconds or seconds
            show(measure(program, targets, is_slim, taken, interval, seconds), options.json)
        if dense is not None:
            show(dense.result(), options.json)


def show(measured: Measured, path: Path | None) -> None:
    """Print one size, and put it in the place of what the file has of it."""
    found = asdict(measured)
    print(" ".join(f"{what}={value:,.5g}" for what, value in found.items()), flush=True)
    if path is None:
        return
    kept = json.loads(path.read_text())["sizes"] if path.exists() else []
    kept = [one for one in kept if key(one) != key(found)]
    report = {"when": f"{datetime.now(UTC):%Y-%m-%d}", "sizes": [*kept, found]}
    path.write_text(json.dumps(report, indent=1) + "\n")


def key(size: Mapping[str, float]) -> tuple[float, float, bool]:
    """What distinguishes a size from others."""
    return size["targets"], size["slim"], size["interval"] == DENSE_INTERVAL


if __name__ == "__main__":
    main()
