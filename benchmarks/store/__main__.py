"""Run the trials of a long-term store: ``scripts/cluster-store`` is the way in.

usage: python -m benchmarks.store [--runs N] [--interval S] [--outage S] [TRIAL ...]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.store.alert_inbox import inbox
from benchmarks.store.simulated_fleet import Fleet, serving
from benchmarks.store.store_servers import TrialError
from benchmarks.store.store_trials import TRIALS, Plan, Site, begin

ROOT = Path(__file__).parents[2]


def version(program: str) -> str:
    """A program's version, for the report."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return " ".join((done.stdout or done.stderr).split()[:3])


def main() -> int:
    """Run them in order; the number that failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.store", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs of the larger cluster")
    parser.add_argument("--interval", type=int, default=5, help="seconds from scrape to scrape")
    parser.add_argument("--outage", type=int, default=60, help="seconds that the store is down")
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--second", default="prometheus", help="the second replica's program")
    options = parser.parse_args()
    if unknown := sorted({*options.trials} - {*TRIALS}):
        parser.error(f"there is no trial {unknown[0]}")
    # In their own order: each begins where the one before has ended.
    names = [name for name in TRIALS if name in options.trials or not options.trials]
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    programs = ("prometheus", options.second)
    for program in programs:
        print(f"· {version(program)}", flush=True)
    results: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory(prefix="esper-store-") as folder, inbox() as box:
        fleet = Fleet()
        with serving(fleet) as port:
            plan = Plan(
                options.runs, options.interval, options.outage, programs, ROOT / "alerts" / "rules"
            )
            site = Site(
                plan, Path(folder), fleet, port, box, lambda line: print(f"    {line}", flush=True)
            )
            try:
                if names != ["month"]:
                    begin(site)
                for name in names:
                    results.append(_try(site, name))
            finally:
                for server in reversed(site.servers):
                    server.stop()
        failed = any(problem for _, _, problem in results)
        if failed:
            kept = ROOT / "build" / "store-failed"
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            for log in Path(folder).glob("**/log"):
                shutil.copy(log, kept / f"{log.parent.name}.log")
    print(f"· {datetime.now(UTC):%Y-%m-%d}, {options.runs} runs")
    for what, value in site.facts.items():
        print(f"    {what:40} {value}")
    for name, seconds, problem in results:
        print(f"{'FAILED' if problem else 'ok':7} {name:16} {seconds:5.0f} s")
    return sum(bool(problem) for _, _, problem in results)


def _try(site: Site, name: str) -> tuple[str, float, str]:
    print(f"· {name}", flush=True)
    began, problem = time.monotonic(), ""
    try:
        TRIALS[name](site)
    except (TrialError, OSError) as error:
        problem = str(error)
        print(f"    FAILED: {problem}", flush=True)
    return name, time.monotonic() - began, problem


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
