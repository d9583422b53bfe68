"""Resolve a SOURCE: telemetry files, folders of runs, journals, globs."""

from __future__ import annotations

import glob
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from esper_exporter.journal.part_files import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable

JOURNAL = "journal.json"
"""The file that makes a directory a journal."""

TELEMETRY = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".ndjson")
_CHUNK = 4 << 20
_FIRST = 1 << 20
_LONGEST = 16 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class SourceError(ValueError):
    """A source that does not exist, or is no source. The text is for the user."""


@dataclass(frozen=True, slots=True)
class Found:
    """Telemetry files, and directories that are journals, each once and in order."""

    files: tuple[Path, ...]
    journals: tuple[Path, ...]


def find(sources: Iterable[str | os.PathLike[str]]) -> Found:
    """Everything that the sources name. Raises SourceError for one that names nothing."""
    files: dict[Path, None] = {}
    journals: dict[Path, None] = {}
    for source in sources:
        before = len(files) + len(journals)
        for path in _paths(os.fspath(source)):
            if is_journal(path):
                journals[path] = None
            elif path.is_dir():
                for each in _inside(path):
                    (journals if is_journal(each) else files)[each] = None
            else:
                files[path] = None
        if len(files) + len(journals) == before:
            raise SourceError(f"{source}: no telemetry (*.jsonl, .gz, .zst) and no journal in it")
    return Found(tuple(files), tuple(journals))


def is_journal(path: Path) -> bool:
    """Whether a directory is a journal, or one part of it."""
    return (path / JOURNAL).is_file() or (path / MANIFEST).is_file()


def _paths(source: str) -> list[Path]:
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
        if found:
            return [Path(each) for each in found]
        raise SourceError(f"{source}: {error.strerror}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISFIFO(mode)):
        raise SourceError(f"{source}: neither a file nor a directory")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{source}: not readable")
    return [path]


def _inside(directory: Path) -> Iterator[Path]:
    for root, names, files in os.walk(directory):
        here = Path(root)
        if here != directory and is_journal(here):
            yield here
            names.clear()
            continue
        names.sort()
        for name in sorted(files):
            if name.endswith(TELEMETRY) and _may_hold_events(here / name):
                yield here / name


def _may_hold_events(path: Path) -> bool:
    """Whether the first line of a file is an event, or may be one.

    Folders of runs hold other JSON lines too, such as recorded snapshots.
    """
    line = next(_pieces(path, Reading(), _FIRST), b"").partition(b"\n")[0]
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return True
    return isinstance(event, dict) and "event_type" in event


@dataclass(slots=True)
class Reading:
    """Progress in reading a file."""

    lines: int = 0
    damaged: str | None = None
    """Why reading stopped before the end."""


def chunks(path: Path, reading: Reading, size: int) -> Iterator[list[bytes]]:
    """The lines of a file, at most ``size`` at once, as `blocks` reads them."""
    for block in blocks(path, reading):
        lines = bytes(block).split(b"\n")
        if not lines[-1]:
            del lines[-1]
        reading.lines += len(lines)
        for place in range(0, len(lines), size):
            yield lines[place : place + size]


def blocks(path: Path, reading: Reading) -> Iterator[bytes | memoryview]:
    """A file in blocks of whole lines, gzip and zstd decompressed by their content.

    What cannot be read to its end gives what came before, and ``reading`` says so. A line that is
    too long to be an event is one byte that is no JSON.
    """
    rest = b""
    skipping = False
    for data in _pieces(path, reading):
        first = data.find(b"\n") + 1
        if not first:
            rest = b"" if skipping else rest + data
            if len(rest) > _LONGEST:
                rest, skipping = b"", True
            continue
        last = data.rfind(b"\n") + 1
        # The line that two pieces share is a separate block: the others need no copy.
        yield b"\x00\n" if skipping else rest + data[:first]
        if last > first:
            yield memoryview(data)[first:last]
        rest, skipping = data[last:], False
    if rest or skipping:
        yield rest or b"\x00"


def _pieces(path: Path, reading: Reading, size: int = _CHUNK) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as raw:
            yield from _decoded(io.BufferedReader(raw, size), reading, size)
    except OSError as error:
        reading.damaged = error.strerror or str(error)


def _decoded(file: io.BufferedReader[Any], reading: Reading, size: int) -> Iterator[bytes]:
    magic = file.peek(4)[:4]
    opened: IO[bytes] | None = None
    if magic.startswith(_GZIP):
        from isal import igzip

        opened = igzip.GzipFile(fileobj=file)  # type: ignore[assignment, no-untyped-call]
    elif magic == _ZSTD:
        import pyarrow as pa

        opened = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    read: Callable[[int], bytes] = file.read if opened is None else opened.read
    while True:
        try:
            piece = read(size)
        except (OSError, EOFError, ValueError) as error:
            if size > 1 << 10 and opened is not None:
                size >>= 4  # so that the data before the damage is not lost with it
                with suppress(OSError, EOFError, ValueError):
                    continue
            reading.damaged = str(error)
            return
        if not piece:
            return
        yield piece
