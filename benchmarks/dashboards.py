"""What the dashboards' queries cost on a day of many runs.

    python -m benchmarks.dashboards [--runs N] [--hours H] [--step S]

A real Prometheus gets blocks with one run whole, and of the other runs the families that are
asked of all runs at once; in the last two minutes it has all series of all runs. The series are a
recorded page's, spread over 6 environments × 6 slots; counters count on, gauges waver. Then every
query of every dashboard is asked as Grafana would, three times, the best one counts: vitals at
the end, graphs over the whole time with about a thousand points.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fleet import RUN_ID, pages
from benchmarks.scrape import _free_port

ENVS, SLOTS = 6, 6
BLOCK_SECONDS = 7200
END = 1_700_006_400 // BLOCK_SECONDS * BLOCK_SECONDS
"""A time in the past that is the end of a block."""

DASHBOARDS = Path(__file__).parents[1] / "grafana" / "dashboards"
OF_ALL_RUNS = ("esper-fleet", "esper-exporter")
ROUNDS = 3
POINTS = 1000


class Series:
    """One series: its line up to the value, what it starts at, and whether it counts."""

    def __init__(self, prefix: str, value: float, counts: bool) -> None:
        self.name = prefix.partition("{")[0]
        self.prefix, self.value, self.counts = prefix, value, counts

    def line(self, step: int, moment: str) -> str:
        now = self.value + step if self.counts else self.value * (1 + step % 7 / 100)
        return f"{self.prefix} {now!r}{moment}"


def series_of_a_run(run: int) -> list[Series]:
    """A run's series: those of the recorded training's first environment and slot, for all."""
    found: dict[str, Series] = {}
    counters: set[str] = set()
    for line in PAGE:
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            if kind in ("counter", "histogram"):
                counters.add(name)
            continue
        if line.startswith("#") or 'env_id="1"' in line:
            continue
        prefix, _, text = line.rpartition(" ")
        base = re.sub(r"_(bucket|sum|count)$", "", prefix.partition("{")[0])
        target = f'job="esper",instance="node-{run}:9108"'
        prefix = (
            prefix.replace("{", "{" + target + ",", 1)
            if "{" in prefix
            else (f"{prefix}{{{target}}}")
        )
        prefix = prefix.replace(f'"{RUN_ID}"', f'"run-{run:02d}"')
        counts = base in counters or prefix.partition("{")[0] in counters
        for one in spread(prefix):
            found[one] = Series(one, float(text), counts)
    return list(found.values())


def spread(prefix: str) -> Iterator[str]:
    """The series of one environment and slot, for all of them."""
    if 'env_id="' not in prefix:
        yield prefix
        return
    for env in range(ENVS):
        of_env = prefix.replace('env_id="0"', f'env_id="{env}"')
        if 'slot_id="' not in of_env:
            yield of_env
            continue
        for slot in range(SLOTS):
            yield re.sub(r'slot_id="[^"]*"', f'slot_id="r0c{slot}"', of_env)


PAGE: list[str] = []


def queries() -> list[tuple[str, str, str, int]]:
    """Dashboard, panel, query, and for how many points it is asked: 0 is one moment only."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for row in board["panels"]:
            for panel in [row, *row.get("panels", [])]:
                for target in panel.get("targets", []):
                    points = 0 if target["instant"] else panel.get("maxDataPoints", POINTS)
                    found.append((path.stem, panel["title"], target["expr"], points))
    return found


def fill(folder: Path, promtool: str, runs: int, hours: float, step: int) -> int:
    """Make the blocks; how many samples they hold."""
    wanted = {
        name
        for uid, _, expression, _ in queries()
        if uid in OF_ALL_RUNS
        for name in re.findall(r"\besper_\w+", expression)
    }
    whole = [series_of_a_run(run) for run in range(runs)]
    lasting = whole[0] + [s for run in whole[1:] for s in run if s.name in wanted]
    everything = [s for run in whole for s in run]
    count = 0
    for start in range(END - int(hours * 3600), END, BLOCK_SECONDS):
        text = folder / "block.om"
        with text.open("w") as out:
            for moment in range(start, start + BLOCK_SECONDS, step):
                present = everything if moment >= END - 120 else lasting
                number = (moment - start) // step
                out.write("".join(s.line(number, f" {moment}\n") for s in present))
                count += len(present)
            out.write("# EOF\n")
        subprocess.run(
            [promtool, "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"],
            check=True,
            capture_output=True,
        )
    return count


def ask(url: str, expression: str, points: int, hours: float, step: int) -> float:
    """Seconds that a query takes, as Grafana sends it."""
    every = max(step, math.ceil(hours * 3600 / (points or POINTS) / step) * step)
    values = {
        "__range": f"{int(hours * 3600)}s",
        "__rate_interval": f"{max(4 * step, every + step)}s",
    }
    values["run"] = "run-00"
    query = re.sub(r"\$\{?(\w+)\}?", lambda name: values.get(name[1], ".*"), expression)
    given: dict[str, Any] = {"query": query}
    if not points:
        given["time"] = END - step
    else:
        given |= {"start": END - hours * 3600, "end": END - step, "step": every}
    path = "query_range" if points else "query"
    began = time.perf_counter()
    request = f"{url}/api/v1/{path}?{urllib.parse.urlencode(given)}"
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - began


def measure(programs: dict[str, str], runs: int, hours: float, step: int) -> None:
    """Fill a server, ask everything, print each dashboard's slowest queries."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        count = fill(folder, programs["promtool"], runs, hours, step)
        print(
            f"{count:,} samples, {runs} runs, {hours:g} h; made in {time.monotonic() - began:.0f} s"
        )
        (folder / "prometheus.yml").write_text("{}")
        port = _free_port()
        process = subprocess.Popen(
            [
                programs["prometheus"],
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=20y",
                "--storage.tsdb.max-block-duration=2h",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/-/ready")
            slowest: dict[str, list[tuple[float, str]]] = {}
            for uid, title, expression, points in queries():
                best = min(ask(url, expression, points, hours, step) for _ in range(ROUNDS))
                slowest.setdefault(uid, []).append((best, title))
            for uid, found in slowest.items():
                found.sort(reverse=True)
                reported = ", ".join(f"{title} {1000 * taken:.0f} ms" for taken, title in found[:3])
                together = sum(taken for taken, _ in found)
                print(f"{uid:15} {len(found):3} queries {together:6.2f} s together; {reported}")
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(url)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.dashboards", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--hours", type=float, default=24.0, help="a multiple of 2")
    parser.add_argument("--step", type=int, default=15, help="seconds from scrape to scrape")
    options = parser.parse_args()
    programs = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    if not all(programs.values()):
        parser.error("prometheus is not installed: apt-get install prometheus")
    PAGE.extend(pages()[-2].decode().splitlines())
    measure({k: v for k, v in programs.items() if v}, options.runs, options.hours, options.step)


if __name__ == "__main__":
    main()
