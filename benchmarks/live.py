"""What attach costs the real trainer: `ESPER_LITE_SRC=… python -m benchmarks.live [--mode run]`.

Trainings of tests/live/trainer.py in pairs, with the exporter and without, each in turn first.
``attach`` trains all of them in this process. ``run`` starts a process for each, with
`esper-exporter run --` before it or not; importing and ending is not counted. Seconds of wall time,
of the training thread's CPU and of the process's CPU (user and system, all threads), each as the
median of the pairs' ratios with its quartiles: a busy machine stretches the first, not the others.
Every pair must end with the same weights and the same random state.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

from live.trainer import Took, load, train  # noqa: E402

LIMIT = 1.03
SEED = 3
CLOCKS = {
    "wall": "wall time",
    "thread": "CPU time of the training thread",
    "process": "CPU time of the process, user and system",
}


def attached(k: int, rounds: int, measured: bool) -> Took:
    """One training in this process."""
    from esper.nissa import get_hub  # type: ignore[import-not-found]

    from esper_exporter import attach

    hub: Any = get_hub()
    if measured:
        attach("bench", port=0, linger=0, state_dir="off", watch_process=False)
    gc.collect()
    try:
        return train(k, rounds, SEED)
    finally:
        hub.reset()


def wrapped(k: int, rounds: int, measured: bool) -> Took:
    """One training in a process, under `esper-exporter run --` if ``measured``."""
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT / "exporter"), str(TESTS))),
        "OMP_NUM_THREADS": "1",
        "ESPER_EXPORTER_LINGER": "0",
        "ESPER_EXPORTER_STATE_DIR": "off",
    }
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, str(TESTS / "live" / "train.py"), folder]
        program += ["--k", str(k), "--rounds", str(rounds), "--seed", str(SEED)]
        before = [sys.executable, "-m", "esper_exporter", "run", "--port", "0", "--"]
        subprocess.run(
            [*before, *program] if measured else program,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        found: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return Took(
        found["seconds"],
        found["thread_seconds"],
        found["process_seconds"],
        found["error"],
        found["hash"],
    )


MODES: dict[str, Callable[[int, int, bool], Took]] = {"attach": attached, "run": wrapped}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.live", description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="attach")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--k", type=int, default=1, help="inner epochs (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="updates of a training (default 3)")
    parser.add_argument("--minutes", type=float, default=5.5, help="start no pair after that")
    options = parser.parse_args()
    if not os.environ.get("ESPER_LITE_SRC"):
        parser.error("ESPER_LITE_SRC must name a checkout of esper-lite")
    work = MODES[options.mode]
    if options.mode == "attach":
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        load()
        for measured in (True, False):
            work(options.k, 1, measured)  # imports, and torch's first operations
    pairs: list[tuple[Took, Took]] = []
    begun = time.monotonic()
    while len(pairs) < options.pairs and time.monotonic() - begun < options.minutes * 60:
        order = (True, False) if len(pairs) % 2 else (False, True)
        took = {measured: work(options.k, options.rounds, measured) for measured in order}
        if took[True].digest != took[False].digest or took[True].error:
            print(f"not the same training: {took}", file=sys.stderr)
            return 1
        pairs.append((took[True], took[False]))
        print(_row(len(pairs), *pairs[-1]), flush=True)
    print(
        f"{options.mode}, k = {options.k}, {options.rounds} updates a training, {len(pairs)} pairs,"
        f" weights and random state the same; wanted ≤ {LIMIT}×"
    )
    for clock, meaning in CLOCKS.items():
        print(_summary(meaning, [(getattr(a, clock), getattr(b, clock)) for a, b in pairs]))
    return 0


def _row(number: int, ours: Took, theirs: Took) -> str:
    reported = [f"{clock} {getattr(ours, clock) / getattr(theirs, clock):.3f}" for clock in CLOCKS]
    return f"{number}: {', '.join(reported)} ({theirs.wall:.2f} s)"


def _summary(meaning: str, pairs: list[tuple[float, float]]) -> str:
    ratios = [one / other for one, other in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    ours, theirs = (median(each) for each in zip(*pairs, strict=True))
    return (
        f"{meaning}: {median(ratios):.3f}× (quartiles {low:.3f}, {high:.3f};"
        f" medians {ours:.2f} s with, {theirs:.2f} s without)"
    )


if __name__ == "__main__":
    sys.exit(main())
