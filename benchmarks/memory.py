"""Memory of 16,000 series, each side in a separate process."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks.measure import Result

_PROBE = """
import gc, sys
from benchmarks import content
def rss():
    gc.collect()
    with open('/proc/self/statm') as reported:
        return int(reported.read().split()[1]) * 4096
values = content.values(); labels = content.label_sets()
before = rss()
kept = content.{kind}()
{after}
print(rss() - before)
"""


def _grown(kind: str, after: str = "") -> int:
    program = _PROBE.format(kind=kind, after=after)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def run(rounds: int) -> list[Result]:
    pairs = [
        (_grown("OurPage", "kept.render()"), _grown("TheirPage")) for _ in range(min(rounds, 3))
    ]
    ours, theirs = median(one for one, _ in pairs), median(other for _, other in pairs)
    return [
        Result(
            "memory of 16,000 series",
            ours,
            theirs,
            median(one / other for one, other in pairs),
            "bytes",
            0.7,
            more=False,
            note="RSS; ours after a first page, with all its line starts",
        )
    ]
