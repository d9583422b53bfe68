"""What the shipped rules read at one evaluation, when there is a day of samples.

    python -m benchmarks.rule_cost [--runs N] [--step S]

Rules that look back a day cost the more the longer a Prometheus has run, which a trial of minutes
does not show. A block with a day of all families that the rules use is made for some runs; then
each rule is asked once, and Prometheus counts the samples that it reads. Printed are the samples a
run, for one every 15 s, those of the rules that read most, and the time at best of three.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from benchmarks.dashboards import _wait
from benchmarks.fleet import RULES, RUN_ID, pages, slim
from benchmarks.scrape import _free_port

DAY = 86_400
SCRAPE_EVERY = 15.0
SHOWN = 5


def write_day(path: Path, page: bytes, runs: int, step: int, end: int) -> None:
    """A day of a page's samples as OpenMetrics, its values standing still."""
    times = [f"{at}\n" for at in range(end - DAY, end + 1, step)]
    with path.open("w") as out:
        for line in page.decode().splitlines():
            if line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            series = series if "{" in series else series + "{}"
            for run in range(runs):
                named = series.replace(f'"{RUN_ID}"', f'"run-{run}"')
                labels = f'{{job="esper",instance="node-{run}:9108",'
                prefix = f"{named.replace('{', labels, 1).replace(',}', '}')} {value} "
                out.write("".join([prefix + at for at in times]))
        out.write("# EOF\n")


def ask(url: str, expression: str, at: int) -> tuple[int, float]:
    """Samples that a query reads, and the seconds it takes at best of three."""
    query = urllib.parse.urlencode({"query": expression, "time": at, "stats": "all"})
    samples, times = 0, []
    for _ in range(3):
        began = time.perf_counter()
        with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=120) as answer:
            found = json.load(answer)["data"]
        times.append(time.perf_counter() - began)
        samples = found["stats"]["samples"]["totalQueryableSamples"]
    return samples, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.rule_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--step", type=int, default=60, help="seconds from sample to sample")
    options = parser.parse_args()
    programs = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    if not all(programs.values()):
        parser.error("prometheus is not installed: apt-get install prometheus")
    end = int(time.time()) // options.step * options.step
    rules = {
        each.get("alert") or each["record"]: each["expr"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for each in group["rules"]
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_day(folder / "day.om", slim(pages()[-1]), options.runs, options.step, end)
        made = [str(programs["promtool"]), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*made, folder / "day.om", folder / "data"], check=True, capture_output=True)
        (folder / "prometheus.yml").write_text("{}")
        port = _free_port()
        process = subprocess.Popen(
            [
                str(programs["prometheus"]),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/-/ready")
            cost = {rule: ask(url, expression, end) for rule, expression in rules.items()}
        finally:
            process.terminate()
            process.wait(60)
    denser = options.step / SCRAPE_EVERY / options.runs
    total = sum(samples for samples, _ in cost.values()) * denser
    seconds = sum(taken for _, taken in cost.values())
    print(f"{len(rules)} rules read {total:,.0f} samples a run at one evaluation, one every 15 s")
    for rule, (samples, taken) in sorted(cost.items(), key=lambda each: -each[1][0])[:SHOWN]:
        print(f"  {samples * denser:10,.0f}  {1000 * taken:6.1f} ms  {rule}")
    print(f"{seconds:.2f} s for {options.runs} runs, a sample every {options.step} s")


if __name__ == "__main__":
    main()
