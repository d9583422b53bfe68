"""Which Prometheus servers see how a training ended: ways to end × servers × times.

    python -m benchmarks.endings --intervals 1s 10s --times 5

Every training latches a NaN and ends at once. Prints, for each way and server, of how many runs it
has the end and the latch; the exit code is 1 if any is missing. Needs Prometheus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.endings_matrix import WAYS, matrix


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.endings", description=__doc__)
    parser.add_argument("--intervals", nargs="+", default=["1s", "10s"], help="of the servers")
    parser.add_argument("--times", type=int, default=5, help="trainings for each way (default 5)")
    parser.add_argument("--linger", type=float, default=45.0)
    parser.add_argument("--term-linger", type=float, default=25.0)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen, codes = matrix(
            Path(folder), options.intervals, options.times, options.linger, options.term_linger
        )
    print("| ending | " + " | ".join(f"{i}: end, latch" for i in options.intervals) + " | codes |")
    print("|---" * (len(options.intervals) + 2) + "|")
    missing = 0
    for way in WAYS:
        cells = [one for one in seen if one.how == way.how]
        missing += sum(2 * options.times - one.ends - one.latches for one in cells)
        shown = " | ".join(f"{one.ends}, {one.latches} of {options.times}" for one in cells)
        right = sum(code == way.code for code in codes[way.how])
        missing += options.times - right
        print(f"| {way.how} | {shown} | {right} of {options.times} |")
    print(f"{missing} missing, {time.monotonic() - begun:.0f} s")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
