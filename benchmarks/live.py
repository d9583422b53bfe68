"""What attach costs the real trainer: `ESPER_LITE_SRC=… python -m benchmarks.live [--pairs 10]`.

Trainings of tests/live/train.py, with and without, in turn; each a process. CPU time of the
training thread, since a busy machine stretches wall time, which is shown too. Medians of pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "live" / "train.py"
LIMIT = 1.03


def train(*options: str) -> tuple[float, float]:
    """CPU and wall seconds of one training."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "exporter"),
        "OMP_NUM_THREADS": "1",
        "ESPER_EXPORTER_LINGER": "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(PROGRAM), folder, *options],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        found = json.loads((Path(folder) / "result.json").read_text())
    return found["cpu_seconds"], found["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.live", description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--k", type=int, default=1, help="inner epochs (default 1)")
    parser.add_argument("--rounds", type=int, default=6, help="updates of a training (default 6)")
    options = parser.parse_args()
    if not os.environ.get("ESPER_LITE_SRC"):
        parser.error("ESPER_LITE_SRC must name a checkout of esper-lite")
    common = ("--k", str(options.k), "--rounds", str(options.rounds))
    pairs: list[tuple[float, float]] = []
    walls: list[float] = []
    for number in range(options.pairs):
        found = {}
        for measured in (True, False) if number % 2 else (False, True):
            more = ("--attach", "--bare") if measured else ()
            found[measured] = train(*common, *more)
        pairs.append((found[True][0], found[False][0]))
        walls.append(found[True][1] / found[False][1])
        with_it, without = pairs[-1]
        print(
            f"{number + 1}: {with_it:.2f} s / {without:.2f} s = {with_it / without:.3f}", flush=True
        )
    ratio = median(one / other for one, other in pairs)
    print(
        f"training thread's CPU time with attach / without: {ratio:.3f}× (wanted ≤ {LIMIT}),"
        f" medians {median(p[0] for p in pairs):.2f} s and {median(p[1] for p in pairs):.2f} s;"
        f" wall {median(walls):.3f}×; {options.pairs} pairs, k = {options.k}"
    )


if __name__ == "__main__":
    main()
