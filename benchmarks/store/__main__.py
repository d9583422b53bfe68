"""Run the trials of a long-term store: ``scripts/cluster-store`` is the way in.

A day: python -m benchmarks.store --hours 24 --log day.jsonl --outage 60 --outage 600
'two clusters' faults day alerts. Ended early and started again, it counts on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.fleet import MOMENTS
from benchmarks.store.alert_inbox import inbox
from benchmarks.store.simulated_fleet import MOMENT_SECONDS, Fleet, serving
from benchmarks.store.site import Plan, Site, begin
from benchmarks.store.store_servers import TrialError
from benchmarks.store.store_trials import TRIALS

ROOT = Path(__file__).parents[2]


def version(program: str) -> str:
    """A program's version, for the report."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return " ".join((done.stdout or done.stderr).split()[:3])


def main() -> int:
    """Run them in order; the number that failed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=200, help="runs of the larger cluster")
    parser.add_argument(
        "--pages",
        choices=("light", "reduced"),
        default="light",
        help="series of a run: 100, or 390 (%(default)s); three runs show all",
    )
    parser.add_argument("--interval", type=int, default=15, help="seconds from scrape to scrape")
    parser.add_argument(
        "--evaluate",
        type=int,
        metavar="S",
        help="seconds from evaluation to evaluation (the interval, at least 5)",
    )
    parser.add_argument(
        "--outage",
        type=int,
        action="append",
        metavar="S",
        help="seconds that the store is down (60); repeat it for several times",
    )
    parser.add_argument("--hours", type=float, default=0.0, help="how long the trial `day` takes")
    parser.add_argument(
        "--log",
        type=Path,
        default=ROOT / "build" / "store-day.jsonl",
        metavar="FILE",
        help="to which `day` adds its lines",
    )
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--second", default="prometheus", help="the second replica's program")
    options = parser.parse_args()
    if unknown := sorted({*options.trials} - {*TRIALS}):
        parser.error(f"there is no trial {unknown[0]}")
    # In their own order: each begins where the one before has ended.
    usual = [name for name in TRIALS if name != "day"]
    names = [name for name in TRIALS if name in (options.trials or usual)]
    outages = tuple(options.outage or [60])
    day = options.hours * 3600
    moment_seconds = max(MOMENT_SECONDS, day / MOMENTS)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    programs = ("prometheus", options.second)
    for program in programs:
        print(f"· {version(program)}", flush=True)
    results: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory(prefix="esper-store-") as folder, inbox() as box:
        fleet = Fleet(options.pages == "light", moment_seconds)
        with serving(fleet) as port:
            plan = Plan(
                runs=options.runs,
                interval=options.interval,
                evaluate=options.evaluate or max(options.interval, 5),
                outages=outages,
                programs=programs,
                rules=ROOT / "alerts" / "rules",
                day=day,
                log=options.log,
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
                if any(problem for _, _, problem in results):
                    _keep_logs(site.folder)
                if site.disk is not None:
                    site.disk.close()
    print(f"· {datetime.now(UTC):%Y-%m-%d}, {options.runs} runs")
    for what, value in site.facts.items():
        print(f"    {what:40} {value}")
    if site.compared:
        print(row(site))
    for name, seconds, problem in results:
        print(f"{'FAILED' if problem else 'ok':7} {name:16} {seconds:5.0f} s")
    return sum(bool(problem) for _, _, problem in results)


def _keep_logs(folder: Path) -> None:
    kept = ROOT / "build" / "store-failed"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in folder.glob("**/log"):
        shutil.copy(log, kept / f"{log.parent.name}.log")


def row(site: Site) -> str:
    """The line of the table in docs/CLUSTER.md."""
    plan, counts = site.plan, site.counts
    cells = (
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{plan.runs} runs, {plan.interval} s",
        f"{site.compared:,.0f} s",
        site.facts.get("store down", "never"),
        f"{os.getloadavg()[2]:.0f}",
        f"{counts.series:,}",
        f"{counts.scraped:,}",
        f"{counts.stored:,} of {counts.windows:,}",
        f"{counts.lost:,}",
        f"{counts.duplicates:,}",
        site.facts.get("alert differences", "not compared"),
    )
    return f"| {' | '.join(cells)} |"


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
