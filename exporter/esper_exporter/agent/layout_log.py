"""The layout of a shared page: its families once, then a record for each added or removed row.

The log's first line holds the families and the columns of each kind of row, so that an agent of
another version can serve it. Then each line is a record: ``[cell, block, labels]`` adds the row
that begins at a cell, ``[cell]`` removes it. A publication names the bytes of the log that belong
to it, so that a half-written record is never read. The process that trains writes only what
changed; the text of every line is built by the agent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from esper_exporter.agent.owned_file import PageRefused, open_owned
from esper_exporter.metrics.exposition import Capture
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.table import Block, Row

FORMAT = 1
MAX_LOG_BYTES = 256 * 1024 * 1024
COMPACT_BYTES = 4 * 1024 * 1024
COMPACT_FACTOR = 3
"""A log is rewritten at this many bytes, if that is this many times its live rows' bytes."""
RESERVED_BYTES = 64 * 1024
"""Room that a log keeps ahead of its end, so that a share that fills up stops no small change."""
MAX_ROWS = 400_000
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KINDS = frozenset({"gauge", "counter", "histogram", "info", "unknown"})
_SUFFIXES = frozenset({"", "_bucket", "_sum", "_count"})

RowLabels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One family as its page declares it. ``of_run``: its samples carry ``run_id``."""

    name: str
    kind: str
    unit: str
    help: str
    of_run: bool

    def as_metric(self) -> Metric:
        """The family as the renderer needs it."""
        return Metric(
            name=self.name,
            kind=self.kind,  # type: ignore[arg-type]
            help=self.help,
            block="",
            unit=self.unit,
        )


@dataclass(frozen=True, slots=True)
class ColumnOf:
    """One cell of a row: the number of its family, its suffix and its fixed labels."""

    family: int
    suffix: str
    labels: RowLabels


@dataclass(frozen=True, slots=True)
class Schema:
    """The families of a page in order, and the columns of each kind of row."""

    families: tuple[Family, ...]
    blocks: dict[str, tuple[ColumnOf, ...]]


@cache
def own_schema() -> bytes:
    """This version's schema as the first line of a log."""
    blocks = compiled()
    return schema_of(blocks.catalogue.metrics, blocks.blocks)


def schema_of(metrics: Sequence[Metric], blocks: Iterable[Block]) -> bytes:
    """The schema of a page with these families and kinds of rows."""
    numbers = {metric.name: number for number, metric in enumerate(metrics)}
    return orjson.dumps(
        {
            "format": FORMAT,
            "families": [
                [m.name, m.kind, m.unit, m.help, m.labels[:1] == ("run_id",)] for m in metrics
            ],
            "blocks": {
                block.name: [
                    [numbers[column.metric.name], column.suffix, column.labels]
                    for column in block.columns
                ]
                for block in blocks
            },
        }
    )


@cache
def parse_schema(line: bytes) -> Schema:
    """A schema from a log's first line; equal lines give the same object. Raises PageRefused."""
    try:
        raw = orjson.loads(line)
        if raw["format"] != FORMAT:
            raise PageRefused("version", f"layout format {raw['format']!r}, not {FORMAT}")
        families = tuple(Family(*entry) for entry in raw["families"])
        blocks = {
            str(name): tuple(
                ColumnOf(number, suffix, _labels(labels)) for number, suffix, labels in columns
            )
            for name, columns in raw["blocks"].items()
        }
    except PageRefused:
        raise
    except Exception as problem:
        raise PageRefused("corrupt", f"layout: {type(problem).__name__} in its schema") from None
    for family in families:
        text = (family.name, family.unit, family.help)
        if not all(isinstance(part, str) for part in text) or not _NAME.fullmatch(family.name):
            raise PageRefused("corrupt", "layout: not a metric name")
        if family.kind not in _KINDS:
            raise PageRefused("corrupt", f"layout: unknown type {family.kind!r:.40}")
    for columns in blocks.values():
        for column in columns:
            if column.suffix not in _SUFFIXES or not 0 <= column.family < len(families):
                raise PageRefused("corrupt", "layout: a column of no family")
    return Schema(families, blocks)


def _labels(raw: Any) -> RowLabels:
    labels = tuple((name, value) for name, value in raw)
    for name, value in labels:
        if not isinstance(value, str) or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PageRefused("corrupt", "layout: not a label")
    return labels


class LayoutWriter:
    """Appends the rows of one process' table to its log. Not thread-safe.

    Raises OSError where there is no room; what was recorded stays as it is, and the next call tries
    again.

    ``schema`` is the log's first line: this version's unless given.
    """

    def __init__(self, directory: Path, schema: bytes | None = None) -> None:
        self._directory = directory
        self._schema = own_schema() if schema is None else schema
        self._known: dict[Row, RowLabels] = {}
        self._version = -1
        self._handle = -1
        self._room = 0
        self.generation = 0
        self.size = 0

    def record(self, state: Capture) -> None:
        """Append the rows added, removed or renamed since the last call."""
        if state.version == self._version and self._handle >= 0:
            return
        current = {row: row.labels for rows in state.rows.values() for row in rows}
        if self._handle < 0:
            self._begin(current)
        elif not self._compact(current):
            gone = [row for row in self._known if current.get(row) != self._known[row]]
            came = [row for row in current if current[row] != self._known.get(row)]
            records = [orjson.dumps([row.start]) for row in gone]
            self._append(records + [_added(row) for row in came])
        self._known = current
        self._version = state.version

    def _compact(self, rows: Iterable[Row]) -> bool:
        """Whether a log that had grown too long was begun anew; not without room for both."""
        if self.size <= COMPACT_BYTES or self.size <= COMPACT_FACTOR * self._live_bytes():
            return False
        try:
            self._begin(rows)
        except OSError:
            return False
        return True

    def _live_bytes(self) -> int:
        return len(self._schema) + sum(len(_added(row)) for row in self._known)

    def _begin(self, rows: Iterable[Row]) -> None:
        """Write a new log with the current rows. The old one is removed once the page names the new
        one."""
        generation = self.generation + 1
        path = log_path(self._directory, generation)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        data = _lines([self._schema, *(_added(row) for row in rows)])
        try:
            room = _write_at(handle, 0, data, 0)
        except BaseException:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._room = handle, room
        self.size, self.generation = len(data), generation

    def _append(self, records: Iterable[bytes]) -> None:
        data = _lines(records)
        # Not O_APPEND: what a full disk let through of a record is written over by the next.
        self._room = _write_at(self._handle, self.size, data, self._room)
        self.size += len(data)

    def forget_older(self) -> None:
        """Remove the logs that no publication names any more."""
        for generation in range(max(1, self.generation - 4), self.generation):
            log_path(self._directory, generation).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file descriptor; the file stays."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle, self._room = -1, 0


def _lines(records: Iterable[bytes]) -> bytes:
    return b"".join(record + b"\n" for record in records)


def _write_at(handle: int, offset: int, data: bytes, room: int) -> int:
    """Write at an offset of a file that has room for so many bytes; the room that it has then."""
    end = offset + len(data)
    if end > room:
        room = end + RESERVED_BYTES
        os.posix_fallocate(handle, 0, room)
    written = 0
    while written < len(data):
        written += os.pwrite(handle, data[written:], offset + written)
    return room


def log_path(directory: Path, generation: int) -> Path:
    """The path of a generation of the log."""
    return directory / f"layout.{generation}"


def _added(row: Row) -> bytes:
    labels = [(name, value.encode("utf-8", "replace").decode()) for name, value in row.labels]
    return orjson.dumps([row.start, row.block.name, labels])


@dataclass(slots=True)
class LayoutReader:
    """Follows one process' log."""

    directory: Path
    owners: frozenset[int]
    schema: Schema | None = None
    rows: dict[int, tuple[str, RowLabels]] = field(default_factory=dict)
    """First cell → kind of row and its labels."""
    version: int = 0
    """Changes whenever a row comes, goes or is renamed."""
    _generation: int = -1
    _offset: int = 0

    def follow(self, generation: int, upto: int) -> None:
        """Read the log up to a byte. Raises PageRefused, FileNotFoundError, OSError."""
        if generation != self._generation or upto < self._offset:
            self.schema, self.rows, self._offset = None, {}, 0
            self._generation = generation
            self.version += 1
        if upto == self._offset:
            return
        if upto > MAX_LOG_BYTES:
            raise PageRefused("too_large", f"the layout claims {upto} bytes")
        path = log_path(self.directory, generation)
        handle = open_owned(path, self.owners, MAX_LOG_BYTES)
        try:
            data = os.pread(handle, upto - self._offset, self._offset)
        finally:
            os.close(handle)
        if len(data) < upto - self._offset or not data.endswith(b"\n"):
            raise PageRefused("truncated", f"{path} ends within what was published")
        self._apply(data.split(b"\n")[:-1])
        self._offset = upto
        self.version += 1

    def _apply(self, lines: list[bytes]) -> None:
        if self.schema is None:
            self.schema = parse_schema(lines[0])
            lines = lines[1:]
        blocks = self.schema.blocks
        try:
            for line in lines:
                record = orjson.loads(line)
                start = record[0]
                if type(start) is not int or start < 0:
                    raise ValueError("not a cell")
                if len(record) == 1:
                    self.rows.pop(start, None)
                    continue
                block, labels = record[1], _labels(record[2])
                if block not in blocks:
                    raise ValueError("no such kind of row")
                self.rows[start] = (block, labels)
        except PageRefused:
            raise
        except Exception as problem:
            raise PageRefused("corrupt", f"layout: {problem!r:.80} in a record") from None
        if len(self.rows) > MAX_ROWS:
            raise PageRefused("too_large", f"the layout has {len(self.rows)} rows")
