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


RECORDED_HEADS = (
    *("slot", "blueprint", "style", "tempo"),
    *("alpha_target", "alpha_speed", "alpha_curve", "op"),
)
"""The policy's heads when the recordings were made; the vocabulary may have more by now."""
