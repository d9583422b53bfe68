"""SQL over runs: a DuckDB connection with the views of every run that some sources hold.

Needs the extra ``sql`` (DuckDB and pyarrow).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter.journal.sources import Reading, SourceError, blocks, find

if TYPE_CHECKING:
    import duckdb

__all__ = ["Loaded", "MissingExtra", "SourceError", "connect", "load"]

MEMORY = "2GB"


class MissingExtra(ImportError):
    """DuckDB or pyarrow is not installed."""

    def __init__(self) -> None:
        super().__init__("SQL needs DuckDB and pyarrow: pip install duckdb pyarrow")


@dataclass(slots=True)
class Loaded:
    """A connection, and what was said while its sources were read."""

    connection: duckdb.DuckDBPyConnection
    warnings: list[str] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)


def connect(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, memory_limit: str = MEMORY
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views of `esper_exporter.journal.views` over some sources.

    ``source`` is telemetry (JSON lines, plain, gzip or zstd), a folder of runs, a journal or a
    glob, or several of them. The connection reads nothing else and writes nothing: external access
    is off and its configuration locked. ``memory_limit`` is DuckDB's, as in ``"2GB"``.

    Raises SourceError for a source that is not there or holds no event, MissingExtra without the
    extra ``sql``.
    """
    return load(source, memory_limit=memory_limit).connection


def load(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    memory_limit: str = MEMORY,
    comments: bool = True,
) -> Loaded:
    """As `connect`, with the warnings about what could not be read.

    Without ``comments`` the views have no descriptions and units, and open faster.
    """
    try:
        import duckdb
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtra from None
    from esper_exporter.journal.database import build
    from esper_exporter.journal.store import sealed_parts, unsealed

    found = find([source] if isinstance(source, str | os.PathLike) else source)
    warnings: list[str] = []
    scratch = Path(tempfile.mkdtemp(prefix="esper-exporter-sql-"))
    try:
        parts: list[Path] = []
        for journal in found.journals:
            sealed, damaged = sealed_parts(journal)
            parts += sealed
            warnings += damaged
            parts += unsealed(journal, scratch, warnings)
        for number, path in enumerate(found.files):
            part = scratch / f"file-{number:04d}"
            warnings += read_file(path, part)
            parts.append(part)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "temp_directory": str(scratch / "spill"),
        }
        connection = duckdb.connect(config=config)
        if not build(connection, parts, comments=comments):
            raise SourceError("no line is a usable telemetry event")
        lock(connection)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(connection, shutil.rmtree, scratch, ignore_errors=True)
    return Loaded(connection, warnings, parts)


def read_file(path: Path, part: Path) -> list[str]:
    """Bring a telemetry file into a part; returns what the user should know of it."""
    from esper_exporter.journal.parts import PartWriter

    writer = PartWriter(part, str(path))
    reading = Reading()
    first = 1
    for block in blocks(path, reading):
        first += writer.feed_block(first, block)
    manifest = writer.close()
    said = []
    if reading.damaged:
        said.append(f"{path}: {reading.damaged}; what came before that was read")
    if refused := sum(manifest["rejected"].values()):
        reasons = ", ".join(f"{count:,} {why}" for why, count in manifest["rejected"].items())
        said.append(f"{path}: {refused:,} lines could not be used ({reasons})")
    return said


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on the connection reads no file, writes none, and no setting changes that."""
    for setting in (
        "enable_external_access = false",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}").fetchall()
