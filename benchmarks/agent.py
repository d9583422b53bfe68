"""What sharing a page costs the training, and what serving many pages costs the agent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from benchmarks.content import OurPage
from benchmarks.measure import Result, cpu_seconds
from benchmarks.stolen import stolen_by
from esper_exporter.agent.layout_log import LayoutWriter, schema_of
from esper_exporter.agent.merged_page import FamilyOrder, MergedPage, Part
from esper_exporter.agent.page_file import PageReader, PageWriter
from esper_exporter.agent.page_view import PageView
from esper_exporter.metrics.exposition import TEXT, capture

PROCESSES = 8
OWNERS = frozenset({os.getuid()})


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, as a share is."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as name:
        yield Path(name)


class Shared:
    """A page of 16,000 gauges in a share."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._page = OurPage()
        self._captured = capture(self._page.table, None)
        self._writer = PageWriter(directory / "page")
        (block,) = self._page.table.blocks.values()
        self._layout = LayoutWriter(directory, schema_of(block.metrics, [block]))
        self.publish()

    def publish(self) -> None:
        self._captured = capture(self._page.table, self._captured)
        self._layout.record(self._captured)
        self._writer.publish(
            self._captured.values, time.time(), self._layout.generation, self._layout.size
        )


class Agent:
    """Serves the pages of several processes."""

    def __init__(self, directories: list[Path]) -> None:
        self._views = [PageView(directory, OWNERS, 0) for directory in directories]
        self._page = MergedPage(FamilyOrder(), TEXT)

    def scrape(self) -> bytes:
        parts = []
        for view in self._views:
            view.refresh()
            assert view.lines is not None and view.schema is not None and view.published is not None
            parts.append(Part(view.lines, view.schema.families, view.published.values))
        return self._page.render(parts)


_CLIENT = """
import sys
sys.path[:0] = sys.argv[1:]
from benchmarks.content import TheirPage
TheirPage()
"""


def _client_pages(directory: Path) -> None:
    """prometheus_client's files of as many processes with as many gauges."""
    for _ in range(PROCESSES):
        subprocess.run(
            [sys.executable, "-c", _CLIENT, *sys.path],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
            check=True,
        )


def _client_scrape(directory: Path) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return generate_latest(registry)


def _torn(rounds: int) -> Result:
    """Readings under a writer at full speed; each publication holds one number in all cells."""
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from esper_exporter.agent.page_file import PageWriter\n"
        "writer, number = PageWriter(Path(sys.argv[1])), 0\n"
        "while True:\n"
        "    number += 1\n"
        "    writer.publish(np.full(2000, float(number)), 1.0, 1, 1)\n"
    )
    with folder() as place:
        path = place / "page"
        child = subprocess.Popen([sys.executable, "-c", program, str(path)])
        try:
            while not path.exists():
                time.sleep(0.01)
            reader = PageReader(path, OWNERS)
            torn = reads = 0
            for _ in range(10_000 * rounds):
                found = reader.read()
                if found is not None:
                    reads += 1
                    torn += bool(found.values[0] != found.values[-1])
        finally:
            child.kill()
            child.wait()
    return Result(
        "torn readings of a shared page",
        float(torn),
        None,
        None,
        "",
        0.0,
        more=False,
        note=f"of {reads:,}; {reader.torn:,} were repeated before they were used",
    )


def run(rounds: int) -> list[Result]:
    with folder() as place:
        shared = [Shared(place / str(number)) for number in range(PROCESSES)]
        publish = median(cpu_seconds(shared[0].publish, 50) for _ in range(rounds))
        stolen = median(median(stolen_by(shared[0].publish, 5)) for _ in range(rounds))
        agent = Agent([each.directory for each in shared])
        agent.scrape()
        ours = []
        for _ in range(rounds):
            for each in shared:
                each.publish()
            ours.append(cpu_seconds(agent.scrape))
    with folder() as place:
        _client_pages(place)
        theirs = median(cpu_seconds(lambda: _client_scrape(place)) for _ in range(rounds))
    return [
        Result(
            "share a page of 16,000 series each second",
            publish,
            None,
            None,
            "s",
            2e-3,
            more=False,
            note="0.2 % of one core; CPU time of the training",
        ),
        Result(
            "stolen from training a publication",
            stolen,
            None,
            None,
            "s",
            0.6e-3,
            more=False,
            note="with an agent a scrape itself takes nothing from the training",
        ),
        Result(
            f"agent: a scrape of {PROCESSES} × 16,000 series",
            median(ours),
            theirs,
            None,
            "s",
            40e-3,
            more=False,
            note="CPU time of the agent, beside prometheus_client's multiprocess mode",
        ),
        _torn(rounds),
    ]
