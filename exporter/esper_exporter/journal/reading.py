"""Reads runs from telemetry and journals, only with what `explain` needs.

Needs no DuckDB: most lines of telemetry are passed over by a look at their type, and of a journal
only the tables that matter are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esper_exporter.contract.event_table import TYPES, canonical
from esper_exporter.contract.jsonlines import MAX_LINE
from esper_exporter.journal.columns import ENDED, GPU_FAULT, table_of_name
from esper_exporter.journal.record import ALIVE, ORPHAN, RunRecord
from esper_exporter.journal.run_events import EVENT_READERS, WANTED, Row, ignore_event
from esper_exporter.journal.sources import Reading, chunks, find
from esper_exporter.journal.typed_fields import typed_fields

_NAMES = {name for name, table in table_of_name().items() if table.type in WANTED}

_TYPE = re.compile(rb'"event_type"\s*:\s*"([A-Z_]{1,64})"')

_TIME = re.compile(rb'"timestamp"\s*:\s*"([^"\\]{1,40})"')

_SNAPSHOT = re.compile(rb'\{"after_seq"\s*:.{1,300}"snapshot"\s*:\s*\{')
"""A line of the snapshots that are recorded beside telemetry: it is no event, and no damage."""

_CHUNK = 20_000


def read_runs(sources: Iterable[str | Path]) -> tuple[list[RunRecord], list[str]]:
    """Every run that the sources hold, oldest first, and what could not be read.

    Raises SourceError for a source that is not there.
    """
    found = find(sources)
    warnings: list[str] = []
    runs: list[RunRecord] = []
    for path in found.files:
        collected = _Runs(str(path))
        for row in _telemetry(path, warnings, collected):
            collected.take(row)
        runs += collected.runs()
    for journal in found.journals:
        from esper_exporter.journal.journal_rows import journal_rows

        collected = _Runs(str(journal))
        for row in journal_rows(journal, WANTED, warnings, collected.see):
            collected.take(row)
        runs += collected.runs()
    runs.sort(key=lambda run: run.started or run.last_event or datetime.min.replace(tzinfo=UTC))
    return runs, warnings


def _telemetry(path: Path, warnings: list[str], collected: _Runs) -> Iterator[Row]:
    reading = Reading()
    seq = 0
    refused = 0
    for lines in chunks(path, reading, _CHUNK):
        for line in lines:
            seq += 1
            kind = _TYPE.search(line)
            if kind is not None and kind[1].decode() not in _NAMES:
                collected.see_line(seq)
                continue
            if not line or line.isspace() or len(line) > MAX_LINE:
                continue
            row = parsed(line, seq)
            if row is None:
                refused += not _SNAPSHOT.match(line)
            else:
                yield row
        collected.see_time(_last_time(lines))
    if reading.damaged:
        warnings.append(f"{path}: {reading.damaged}; what came before that was read")
    if refused:
        warnings.append(f"{path}: {refused:,} lines are no events that can be used")


def _last_time(lines: list[bytes]) -> datetime | None:
    for line in reversed(lines):
        raw = _TIME.search(line)
        moment = moment_of(raw[1].decode("ascii", "replace")) if raw else None
        if moment is not None:
            return moment
    return None


def parsed(line: bytes | str, seq: int) -> Row | None:
    """The event of a line, None for another line."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("event_type"), str):
        return None
    data = raw.get("data")
    moment = moment_of(raw.get("timestamp"))
    table = table_of_name().get(raw["event_type"])
    if moment is None or table is None:
        return None
    return {
        "event_type": raw["event_type"],
        "timestamp": moment,
        "group_id": raw["group_id"] if isinstance(raw.get("group_id"), str) else "default",
        "seq": seq,
        "event_id": raw["event_id"] if isinstance(raw.get("event_id"), str) else None,
        "data": typed_fields(table, data) if isinstance(data, dict) else {},
    }


def moment_of(raw: Any) -> datetime | None:
    """An event's time, aware; None for a value that is no time."""
    try:
        if isinstance(raw, int | float):
            return datetime.fromtimestamp(raw, UTC)
        moment = raw if isinstance(raw, datetime) else datetime.fromisoformat(raw)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class _Runs:
    """Collects the runs of one source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._all: list[RunRecord] = []
        self._current: dict[str, RunRecord] = {}
        self._newest: RunRecord | None = None
        self._unpaired: set[tuple[Any, ...]] = set()
        self._ids: set[str] = set()

    def runs(self) -> list[RunRecord]:
        """Every run, in the order in which they began."""
        return self._all

    def see_line(self, seq: int) -> None:
        """Note a line whose event is not read: it shows that the run continues."""
        if self._newest is not None:
            self._newest.last_seq = seq

    def see_time(self, moment: datetime | None) -> None:
        """The time of the newest event."""
        run = self._newest
        if run is not None and moment and (run.last_event is None or moment > run.last_event):
            run.last_event = moment

    def see(self, run_id: str, group: str, rank: int, moment: datetime, seq: int) -> None:
        """Note that a run of a journal had an event at that time."""
        run = self._known(run_id, group, rank)
        if run is not None:
            if run.last_event is None or moment > run.last_event:
                run.last_event = moment
            run.last_seq = max(run.last_seq, seq)

    def _known(self, run_id: str, group: str, rank: int) -> RunRecord | None:
        """The run of a journal that an earlier event belongs to."""
        wanted = (run_id, group, rank)
        return next((r for r in self._all if (r.run_id, r.group_id, r.rank) == wanted), None)

    def _see_process(self, row: Row) -> None:
        run = self._known(row["run_id"], row["group_id"], row["rank"])
        if run is not None and row["event_type"] == ALIVE:
            run.alive_at = max(run.alive_at or row["timestamp"], row["timestamp"])
        elif run is not None:
            run.orphaned = run.ending is None

    def take(self, row: Row) -> None:
        """Add one event to its run."""
        if row["event_type"] in (ALIVE, ORPHAN):
            self._see_process(row)
            return
        raw = row.get("event_id")
        if raw is not None:
            if raw in self._ids:
                return
            self._ids.add(raw)
        kind: str = canonical(row["event_type"])
        run = self._begin(row) if kind == "TRAINING_STARTED" else self._of(row, kind)
        if self._repeats(row, kind):
            return
        self._newest = run
        run.last_seq = max(run.last_seq, row["seq"])
        if run.last_event is None or row["timestamp"] > run.last_event:
            run.last_event = row["timestamp"]
        EVENT_READERS.get(kind, ignore_event)(run, row, row["data"])

    def _begin(self, row: Row) -> RunRecord:
        data, begun = row["data"], row["timestamp"]
        name = row.get("run_id") or f"{data.get('episode_id') or 'run'}-{begun:%Y%m%dT%H%M%SZ}"
        if "run_id" in row:
            known = self._known(name, row["group_id"], row["rank"])
            if known is not None:
                # The same run in another process: it was resumed.
                known.config |= {k: v for k, v in data.items() if v is not None}
                known.started = known.started or begun
                known.ending, known.orphaned = None, False
                return known
        run = RunRecord(
            name,
            row["group_id"],
            row.get("rank", data.get("rank") or 0),
            self._source,
            begun,
            {key: value for key, value in data.items() if value is not None},
        )
        self._add(run, row)
        return run

    @staticmethod
    def _of_newest(kind: str) -> bool:
        """Whether rows of this kind belong to the newest run where their group has none."""
        return kind in (ENDED, GPU_FAULT) or (kind in TYPES and TYPES[kind].group_unreliable)

    def _of(self, row: Row, kind: str) -> RunRecord:
        group = row["group_id"]
        if "run_id" in row:
            known = self._known(row["run_id"], group, row["rank"])
            if known is not None:
                return known
        elif group in self._current:
            return self._current[group]
        elif self._of_newest(kind) and self._newest is not None:
            return self._newest
        run = RunRecord(row.get("run_id", "run"), group, row.get("rank", 0), self._source)
        self._add(run, row)
        return run

    def _add(self, run: RunRecord, row: Row) -> None:
        self._all.append(run)
        if "run_id" not in row:
            self._current[run.group_id] = run

    def _repeats(self, row: Row, kind: str) -> bool:
        """Whether an update repeats under its other name."""
        if kind not in ("TAMIYO_POLICY_UPDATE", "TOLARIA_BATCH_COMPLETED", "TOLARIA_ROLLBACK"):
            return False
        data = row["data"]
        names = ("batch", "batch_idx", "policy_loss", "value_loss", "entropy", "env_id", "reason")
        other = TYPES[kind].names[-1] if kind in TYPES else kind
        other = kind if row["event_type"] == other else other
        key = (
            row["group_id"],
            *(str(data.get(name)) for name in names),
            str(data.get("episode_idx")),
        )
        if (other, *key) in self._unpaired:
            self._unpaired.discard((other, *key))
            return True
        self._unpaired.add((row["event_type"], *key))
        return False
