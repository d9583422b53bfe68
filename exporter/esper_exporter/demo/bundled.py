"""Recordings of real trainings in the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

RECORDINGS = {
    "run1": "a healthy training: 2 environments, 3 slots, 14 policy updates, all six operations",
    "run2b": "a training that NaN ends: first in the tempo head, then in the op head",
}
"""The recordings by name."""


@contextmanager
def recording(name: str) -> Iterator[Path]:
    """The event file (gzip of JSON lines) of a recording, as a path valid within the context.

    Raises KeyError for a name that is not in RECORDINGS.
    """
    if name not in RECORDINGS:
        raise KeyError(name)
    bundled = resources.files(__package__) / "recordings" / f"{name}.telemetry.jsonl.gz"
    with resources.as_file(bundled) as path:
        yield path
