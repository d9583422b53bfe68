"""How many series short runs leave in a Prometheus' memory, in time made fast.

    python -m benchmarks.churn [--block S] [--blocks N]

A series stays in memory until the block of its last sample is written, and Prometheus writes
blocks of two hours. Here they last a minute (``--storage.tsdb.min-block-duration``), so that an
hour is half a minute. As many runs as ever are scraped at once; runs of an hour, and of ten
minutes, each follow one another under new names. Printed is how many times the series of the runs
that go on are in memory, on average and at most, once the first blocks are written. Five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean

from benchmarks.dashboards import _wait
from benchmarks.fleet import _Server, configuration, pages, slim
from benchmarks.page_server import serving
from benchmarks.scrape import _free_port

BLOCK_MINUTES = 120.0
"""What Prometheus has by default."""
LENGTHS = (60.0, 10.0)
"""Of runs, in minutes of the time that is made fast."""
RUNS = 10
WARM_BLOCKS = 2


def name_targets(folder: Path, port: int, first: int) -> None:
    """Other runs are scraped from now on."""
    found = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{k}/metrics"}}
        for k in range(first, first + RUNS)
    ]
    (folder / "new").write_text(json.dumps(found))
    os.replace(folder / "new", folder / "targets.json")


def measure(program: str, page: bytes, minutes: float, block: int, blocks: int) -> list[float]:
    """The series in memory for each of those that go on, second by second, after the warm-up."""
    seconds = minutes / BLOCK_MINUTES * block
    with tempfile.TemporaryDirectory() as name, serving([page]) as (port, _):
        folder, own = Path(name), _free_port()
        name_targets(folder, port, 0)
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration(folder, RUNS, port, own, 1.0, 0.0)}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--storage.tsdb.min-block-duration={block}s",
                f"--storage.tsdb.max-block-duration={block}s",
                f"--web.listen-address=127.0.0.1:{own}",
                "--log.level=error",
            ]
        )
        try:
            _wait(f"http://127.0.0.1:{own}/-/ready")
            server = _Server(f"http://127.0.0.1:{own}")
            began, turn, found = time.monotonic(), 0, []
            while (age := time.monotonic() - began) < blocks * block:
                if age >= (turn + 1) * seconds:
                    turn = int(age / seconds)
                    name_targets(folder, port, turn * RUNS)
                if age > WARM_BLOCKS * block:
                    found.append(server.value("prometheus_tsdb_head_series"))
                time.sleep(1.0)
            live = server.value('sum(scrape_samples_post_metric_relabeling{job="esper"})')
        finally:
            process.terminate()
            process.wait(60)
    return [each / live for each in found if each > 0]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.churn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--block", type=int, default=60, metavar="S", help="seconds of a block")
    parser.add_argument("--blocks", type=int, default=5, metavar="N", help="how many of them")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.error("prometheus is not installed: apt-get install prometheus")
    page = slim(pages()[-1])
    with ThreadPoolExecutor(len(LENGTHS)) as beside:
        trials = [
            beside.submit(measure, program, page, minutes, options.block, options.blocks)
            for minutes in LENGTHS
        ]
        for minutes, trial in zip(LENGTHS, trials, strict=True):
            found = trial.result()
            print(
                f"runs of {minutes:g} minutes: {fmean(found):.1f} times the series of those that go"
                f" on are in memory, {max(found):.1f} times at most"
            )


if __name__ == "__main__":
    main()
