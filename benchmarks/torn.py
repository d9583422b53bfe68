"""Readings of shared pages while their writers publish at full speed and are killed.

usage: python -m benchmarks.torn [--reads N] [--kills N] [--writers N] [--cells N]

Each publication holds its own sequence number in every cell. A reading is torn if any cell has
another number. Writers are killed at random moments, some while they put a larger file in the
place of theirs; what the dead writer left must then be one whole publication, not older than the
newest reading. Exits with 1 if a reading was torn, or a page was not readable after a kill.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esper_exporter.agent.page_file import PageReader, PageRefused, PageWriter, Published

NICE = 5
"""Writers get less of a machine with few cores than the reader, which counts its readings."""
OWNERS = frozenset({os.getuid()})


def write(path: Path, cells: int, grows_at: int) -> None:
    """Publish until this process is killed; from one publication on with ten times the cells."""
    writer, number = PageWriter(path), 0
    values = np.empty(cells)
    while True:
        number += 1
        if number == grows_at:
            values = np.empty(10 * cells)
        values.fill(number)
        writer.publish(values, float(number), 1, number)


@dataclass
class Page:
    """A page, its living writer, and what was read of it so far."""

    share: Path
    cells: int
    chance: random.Random
    lives: int = 0
    pid: int = 0
    newest: int = 0
    torn: int = 0
    repeated: int = 0
    busy: int = 0
    directory: Path = field(init=False)
    reader: PageReader = field(init=False)

    def begin(self) -> None:
        """Start a writer in a separate directory, as every process has one."""
        self.lives += 1
        self.newest = 0
        self.directory = self.share / str(self.lives)
        self.directory.mkdir(parents=True)
        path = self.directory / "page"
        grows_at = self.chance.choice([0, self.chance.randrange(2, 20_000)])
        self.pid = os.fork()
        if not self.pid:
            try:
                os.nice(NICE)
                write(path, self.cells, grows_at)
            finally:
                os._exit(1)
        self.reader = PageReader(path, OWNERS)

    def read(self) -> bool:
        """Read once and compare all cells; False while there is no publication yet."""
        found = None
        try:
            found = self.reader.read()
        except FileNotFoundError:
            pass
        except PageRefused as problem:
            if problem.reason != "busy":
                raise
            self.busy += 1
            return True
        if found is None and not self.newest:
            return False
        self.torn += found is None or not self._whole(found)
        return True

    def _whole(self, found: Published) -> bool:
        if found.sequence < self.newest:
            return False
        self.newest = found.sequence
        number = float(found.sequence)
        values = found.values
        same = bool(values.min() == number == values.max())
        return same and found.at == number and found.layout_bytes == found.sequence

    def kill(self) -> bool:
        """Kill the writer; whether its page is one whole publication."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        try:
            found = self.reader.read()
            return found is not None and self._whole(found)
        except (PageRefused, OSError) as problem:
            print(f"after a kill: {problem}")
            return False
        finally:
            self.end()

    def end(self) -> None:
        """Remove what the dead writer left."""
        self.repeated += self.reader.torn
        self.reader.close()
        shutil.rmtree(self.directory)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.torn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--cells", type=int, default=500, help="values of a page at first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    started = time.monotonic()
    kill_at = sorted(chance.randrange(options.reads) for _ in range(options.kills))
    readable = 0
    with tempfile.TemporaryDirectory(dir=base, prefix="esper-torn-") as folder:
        pages = [
            Page(Path(folder) / str(number), options.cells, chance)
            for number in range(options.writers)
        ]
        try:
            for page in pages:
                page.begin()
            reads, turn = 0, 0
            while reads < options.reads:
                turn += 1
                page = pages[turn % len(pages)]
                if not page.read():
                    continue
                reads += 1
                if kill_at and kill_at[0] <= reads:
                    kill_at.pop(0)
                    readable += page.kill()
                    page.begin()
        finally:
            for page in pages:
                if page.pid:
                    os.kill(page.pid, signal.SIGKILL)
                    os.waitpid(page.pid, 0)
                    page.end()
    torn = sum(page.torn for page in pages)
    busy = sum(page.busy for page in pages)
    print(f"{torn} of {options.reads:,} readings torn, {busy} given up as busy")
    print(f"{sum(page.repeated for page in pages):,} overtaken by the writer, and repeated")
    print(f"{readable:,} of {options.kills:,} pages whole after their writer was killed")
    print(f"{time.monotonic() - started:.0f} s")
    return int(torn > 0 or readable != options.kills)


if __name__ == "__main__":
    sys.exit(main())
