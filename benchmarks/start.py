"""What a started exporter adds to a process that has numpy loaded."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks.measure import Result

_PROBE = """
import time, numpy
def rss():
    with open('/proc/self/statm') as reported:
        return int(reported.read().split()[1]) * 4096
before, begun = rss(), time.perf_counter()
from esper_exporter import Exporter
exporter = Exporter(port=0)
exporter.start()
exporter.render()
print(time.perf_counter() - begun, rss() - before)
exporter.close()
"""


def run(rounds: int) -> list[Result]:
    reported = []
    for _ in range(min(rounds, 5)):
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True
        )
        seconds, grown = done.stdout.split()
        reported.append((float(seconds), float(grown)))
    return [
        Result(
            "start: time",
            median(s for s, _ in reported),
            None,
            None,
            "s",
            0.5,
            more=False,
            note="import, start and a first page, numpy loaded before",
        ),
        Result(
            "start: memory",
            median(g for _, g in reported),
            None,
            None,
            "bytes",
            40e6,
            more=False,
            note="RSS, numpy loaded before",
        ),
    ]
