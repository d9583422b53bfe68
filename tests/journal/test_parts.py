"""A part's typed rows are what the exporter reads of the same lines, however they are batched."""

from __future__ import annotations

import gzip
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read
from esper_exporter.demo.bundled import recording
from esper_exporter.journal import acceptance, parts
from esper_exporter.journal.columns import tables
from esper_exporter.sql import read_file

EVENT = {"event_type": "TRAINING_STARTED", "timestamp": "2026-01-01T00:00:00+00:00"}


def rows_of(part: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.stem: pq.read_table(path).to_pylist() for path in part.glob("*.parquet")}


def same(row: Any, read_value: Any) -> bool:
    if row is None:  # the reader also derives fields that a line lacks
        return True
    if isinstance(row, float) and isinstance(read_value, float) and row != read_value:
        # A number as text has the digits of a 32-bit one.
        both_nan = math.isnan(row) and math.isnan(read_value)
        return both_nan or bool(np.float32(row) == np.float32(read_value))
    return bool(row == read_value)


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_rows_equal_the_events_that_the_exporter_reads(name: str, tmp_path: Path) -> None:
    with recording(name) as path:
        read_file(path, tmp_path / "part")
        rows = {row["_seq"]: row for found in rows_of(tmp_path / "part").values() for row in found}
        lines = gzip.decompress(path.read_bytes()).splitlines()
    compared = 0
    for seq, line in enumerate(lines, 1):
        event = read(parse_line(line), lambda: datetime.now(UTC))
        row = rows.pop(seq)
        assert row["_timestamp"].replace(tzinfo=UTC) == event.timestamp
        assert (row["_event_id"], row["_group_id"]) == (event.event_id, event.group_id)
        for column in tables()[event.type].columns:
            value = getattr(event.data, column.name, None)
            if isinstance(value, bool | int | float | str):
                assert same(row[column.name], value), (seq, column.name)
                compared += 1
    assert not rows
    assert compared > 5 * len(lines)


def test_rows_do_not_depend_on_how_lines_are_batched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording("run2b") as path:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        read_file(path, tmp_path / "whole")
        monkeypatch.setattr(parts, "BATCH_BYTES", 20_000)
        monkeypatch.setattr(parts, "WAITING_BYTES", 60_000)
        monkeypatch.setattr(parts, "ROW_GROUP", 7)
        read_file(path, tmp_path / "pieces")
    whole, pieces = rows_of(tmp_path / "whole"), rows_of(tmp_path / "pieces")
    assert {kind: repr(found) for kind, found in pieces.items()} == {
        kind: repr(found) for kind, found in whole.items()
    }
    assert len(lines) == sum(map(len, pieces.values()))


def test_a_repeated_event_is_one_row_across_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BATCH_BYTES", 200)
    monkeypatch.setattr(acceptance, "IDS", 2)
    line = b'{"event_type": "SEED_PRUNED", "event_id": "%s", "data": {}}'
    started = json.dumps(EVENT | {"data": {}}).encode()
    texts = [started, *(line % id_ for number in range(50) for id_ in (b"%03d" % number,) * 2)]
    writer = parts.PartWriter(tmp_path, "here")
    assert writer.feed_block(1, b"\n".join(texts)) == len(texts)
    manifest = writer.close()
    assert manifest["lines"] == len(texts)
    assert manifest["repeated"] + sum(manifest["rejected"].values()) + sum(
        manifest["rows"].values()
    ) == len(texts)
    seen = [row["_event_id"] for row in rows_of(tmp_path).get("SEED_PRUNED", [])]
    assert len(seen) == len(set(seen))


def test_half_a_character_at_the_end_of_a_line_is_refused(tmp_path: Path) -> None:
    line = json.dumps(EVENT | {"message": "x", "data": None}, ensure_ascii=False).encode()
    writer = parts.PartWriter(tmp_path, "here")
    writer.feed_block(1, line + b"\xc3\n\xa9" + line)
    assert writer.close()["rejected"] == {"malformed_json": 2}
