"""`python -m benchmarks.journal`: what the journal costs, by the numbers that it promises.

Telemetry of a million events (`--events`) is made from a recorded run, with other ids, times and
digits in each repetition. Measured are its import, the size of the Parquet files, the memory at a
quarter of the events and at all of them, a grouped query with the opening of the journal, and what
an event costs the training thread, also on a disk that hangs.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Result
from esper_exporter import Exporter
from esper_exporter.contract.jsonlines import parse_line

RECORDING = Path(__file__).parents[1] / "tests" / "recordings" / "run1.telemetry.jsonl.gz"
EVENTS = 1_000_000
QUERY = (
    "SELECT run_id, head, count(*), avg(entropy), max(grad_norm)"
    " FROM head_states GROUP BY run_id, head ORDER BY run_id, head"
)
MUCH = (
    "SELECT action_name, count(*), avg(total_reward), avg(decision_entropy)"
    " FROM decisions GROUP BY action_name ORDER BY 2 DESC"
)

_DIGITS = re.compile(rb"(\d\.\d{3})\d{6,}")
_ID = re.compile(rb'"event_id": "([0-9a-f]{8})')
_TIME = re.compile(rb'"timestamp": "([^"]{26,32})"')


def write_telemetry(path: Path, events: int) -> int:
    """Write telemetry of so many events, and return its bytes. A tenth of a gigabyte a second."""
    recorded = gzip.decompress(RECORDING.read_bytes())
    chance = random.Random(20)
    digits = [b"%012d" % chance.randrange(10**12) for _ in range(4096)]
    size = written = turn = 0
    with path.open("wb") as out:
        while written < events:
            others = iter(chance.choices(digits, k=len(recorded) // 20))
            salt, later = chance.getrandbits(32), timedelta(minutes=2 * turn)
            text = _DIGITS.sub(_then(others), recorded)
            text = _ID.sub(_salted(salt), text)
            text = _TIME.sub(_moved(later), text)
            lines = text.splitlines(keepends=True)[: events - written]
            out.writelines(lines)
            size += sum(map(len, lines))
            written += len(lines)
            turn += 1
    return size


def _then(digits: Any) -> Callable[[re.Match[bytes]], bytes]:
    return lambda found: bytes(found[1]) + next(digits)


def _salted(salt: int) -> Callable[[re.Match[bytes]], bytes]:
    return lambda found: b'"event_id": "%08x' % (int(found[1], 16) ^ salt)


def _moved(later: timedelta) -> Callable[[re.Match[bytes]], bytes]:
    def moved(found: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(found[1].decode()) + later
        return b'"timestamp": "%s"' % moment.isoformat().encode()

    return moved


_IMPORT = """
import sys, time
from esper_exporter.cli import main
begun = time.perf_counter()
code = main(["journal", "import", sys.argv[1], sys.argv[2]])
wall, cpu = time.perf_counter() - begun, time.process_time()
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(code, wall, cpu, peak)
"""


def import_file(journal: Path, telemetry: Path) -> tuple[float, float, int]:
    """Import in a separate process: seconds, its CPU time, and the most memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(journal), str(telemetry)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, wall, cpu, peak = done.stdout.split()[-4:]
    if code != "0":
        raise RuntimeError(done.stderr)
    return float(wall), float(cpu), int(peak)


def _open_and_ask(journal: Path, query: str) -> float:
    from esper_exporter.journal.query import run_query
    from esper_exporter.sql import load

    begun = time.perf_counter()
    connection = load(journal, comments=False).connection
    found = run_query(connection, query)
    spent = time.perf_counter() - begun
    assert len(found) > 1
    connection.close()
    return spent


def imported(scratch: Path, events: int) -> list[Result]:
    """Import, size, memory and queries."""
    telemetry, quarter = scratch / "all.jsonl", scratch / "quarter.jsonl"
    size = write_telemetry(telemetry, events)
    write_telemetry(quarter, events // 4)
    *_, memory_before = import_file(scratch / "small", quarter)
    quarter.unlink()
    wall, cpu, memory = import_file(scratch / "journal", telemetry)
    telemetry.unlink()
    parts = sum(file.stat().st_size for file in (scratch / "journal").rglob("*") if file.is_file())
    _open_and_ask(scratch / "journal", QUERY)  # imports DuckDB
    asked = {
        query: median(_open_and_ask(scratch / "journal", query) for _ in range(3))
        for query in (QUERY, MUCH)
    }
    of = f"{events:,} events"
    return [
        Result(f"import of {of}", events / wall, None, None, "/s", 100_000),
        Result("import, by CPU time", events / cpu, None, None, "/s", note="start included"),
        Result("JSON / journal", size, parts, size / parts, "bytes", 10),
        Result(
            "memory, all / a quarter",
            memory,
            memory_before,
            memory / memory_before,
            "bytes",
            1.25,
            more=False,
            note="most at a time",
        ),
        Result("grouped query of head_states", asked[QUERY], None, None, "s", 0.5, more=False),
        Result("grouped query of decisions", asked[MUCH], None, None, "s", 0.5, more=False),
    ]


def _per_event(events: list[dict[str, Any]], journal: Path | None) -> float:
    exporter = Exporter(
        port=0, state_dir="off", share="off", watch_process=False, journal=journal or ""
    )
    begun = time.thread_time()
    for event in events:
        exporter.emit(event)
    spent = time.thread_time() - begun
    exporter.close()
    return spent / len(events)


def _longest_emit(events: list[dict[str, Any]], journal: Path) -> float:
    """The longest that an emit takes while each write to the disk takes a second, the median of
    the ten longest: what else runs on the machine stops a thread now and then."""
    from esper_exporter.journal.segments import SegmentFile

    quick = SegmentFile.write

    def slow(segment: SegmentFile, data: bytes) -> None:
        time.sleep(1.0)
        quick(segment, data)

    setattr(SegmentFile, "write", slow)  # noqa: B010
    try:
        exporter = Exporter(
            port=0, state_dir="off", share="off", watch_process=False, journal=journal
        )
        spent = []
        for event in events:
            begun = time.perf_counter()
            exporter.emit(event)
            spent.append(time.perf_counter() - begun)
            time.sleep(0.0005)
        exporter.close()
    finally:
        setattr(SegmentFile, "write", quick)  # noqa: B010
    return median(sorted(spent)[-10:])


def journalled(scratch: Path, rounds: int) -> list[Result]:
    """What an event costs the training."""
    with gzip.open(RECORDING) as lines:
        events = [parse_line(line) for line in lines]
    pairs = [
        (_per_event(events, scratch / f"run-{number}"), _per_event(events, None))
        for number in range(rounds)
    ]
    more = median(with_one - without for with_one, without in pairs)
    return [
        Result(
            "journalling, an event",
            more,
            None,
            None,
            "s",
            10e-6,
            more=False,
            note="CPU of the emitting thread beyond that of an exporter without a journal",
        ),
        Result(
            "emit while the disk hangs",
            _longest_emit(events[:2000], scratch / "slow"),
            None,
            None,
            "s",
            0.1,
            more=False,
            note="median of the ten longest; each write takes 1 s",
        ),
    ]


def main() -> int:
    """Print the table; 1 where a floor was missed."""
    from benchmarks.__main__ import table

    parser = argparse.ArgumentParser(prog="benchmarks.journal", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=7, help="of journalling")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = imported(Path(folder), options.events)
        results += journalled(Path(folder), options.rounds)
    print(table(results))
    return int(any(result.met is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
