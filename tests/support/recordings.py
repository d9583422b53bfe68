"""The recordings of real trainings that the tests run on."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recordings"

NAMES = ("run1", "run2b")


def telemetry(name: str) -> Path:
    """The compressed event file of a recording."""
    return FOLDER / f"{name}.telemetry.jsonl.gz"


@cache
def telemetry_lines(name: str) -> tuple[bytes, ...]:
    """The event lines of a recording, without line ends."""
    return tuple(gzip.decompress(telemetry(name).read_bytes()).splitlines())
