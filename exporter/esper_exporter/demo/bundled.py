"""Recordings of real trainings in the installed package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def files_of(sources: Iterable[str]) -> Iterator[list[str]]:
    """The sources, with the file of a recording in place of its name, valid within the context.

    A file or folder of that name comes first.
    """
    with ExitStack() as opened:
        yield [
            str(opened.enter_context(recording(source)))
            if source in RECORDINGS and not os.path.lexists(source)
            else source
            for source in sources
        ]
