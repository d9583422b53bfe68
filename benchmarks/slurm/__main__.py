"""Run the Slurm trials in a prepared chroot: ``scripts/cluster-slurm`` is the way in.

usage: python -m benchmarks.slurm ROOT [TRIAL ...]      inside fresh namespaces, as root
"""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.slurm.node import Cluster, TrialError
from benchmarks.slurm.prometheus import Prometheus
from benchmarks.slurm.trials import TRIALS, Site, begin_time_limit, end_time_limit

ROOT = Path(__file__).parents[2]
TIME_LIMIT = "time limit"


def main(root: Path, wanted: list[str]) -> int:
    """Run the wanted trials, all if none is named; return the number that failed."""
    cluster = Cluster(root)
    names = wanted or [*TRIALS, TIME_LIMIT]
    results: list[tuple[str, float, str]] = []
    prometheus = None
    try:
        cluster.start()
        prometheus = Prometheus(root.parent / "prometheus", cluster.targets, ROOT / "alerts/rules")
        version = cluster.call("slurmctld", "-V").stdout.strip()
        memory = "control groups" if cluster.confines_memory else "Slurm's own watch"
        print(f"· {version}, {datetime.now(UTC):%Y-%m-%d}; memory is confined by {memory}")
        site = Site(cluster, prometheus, lambda line: print(f"    {line}", flush=True))
        limited = begin_time_limit(site) if TIME_LIMIT in names else ""
        for name in names:
            print(f"· {name}", flush=True)
            began = time.monotonic()
            problem = ""
            try:
                if name == TIME_LIMIT:
                    end_time_limit(site, limited)
                else:
                    TRIALS[name](site)
            except TrialError as error:
                problem = str(error)
                print(f"    FAILED: {problem}", flush=True)
            results.append((name, time.monotonic() - began, problem))
    finally:
        if prometheus is not None:
            prometheus.stop()
        cluster.stop()
    for name, seconds, problem in results:
        print(f"{'FAILED' if problem else 'ok':7} {name:24} {seconds:5.0f} s")
    return sum(bool(problem) for _, _, problem in results)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
    sys.exit(130)
