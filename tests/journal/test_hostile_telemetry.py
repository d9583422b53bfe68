"""Telemetry and queries that mean harm: what is sound stays readable, the rest is refused."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from esper_exporter.demo.bundled import recording
from esper_exporter.journal import render
from esper_exporter.journal.compare import compare
from esper_exporter.journal.reading import read_runs
from esper_exporter.journal.report import as_json, explain
from esper_exporter.sql import load

LATER = datetime.now(UTC) + timedelta(days=400)
FAULTS = Path(__file__).parents[1] / "recordings" / "faults"

MARKUP = "<script>alert(1)</script>"
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        10**30,
        10**400,
        -(10**400),
        1e308,
        -1e308,
        1e15,
        1e-320,
        math.nan,
        math.inf,
    ),
    *("", "x" * 3000, MARKUP, "[a](http://e)", "\x1b[2J\x00", "NaN", "9" * 5000, "{", "\ud800"),
    *("2026-13-45", "'; DROP VIEW runs; --", '"."', "Sources: log_probs[<b>]: NaN detected"),
    *([], [[[]]], [1, None, "a"], {}, {"a": {"b": [1]}}, {"op": "x"}, {'"': {"wall_ms": "x"}}),
]


def spoiled(events: list[dict[str, Any]], chance: random.Random) -> bytes:
    """The events with three in ten of them changed in up to four fields."""
    lines = []
    for event in events:
        if chance.random() < 0.3:
            event = json.loads(json.dumps(event))
            for _ in range(chance.randint(1, 4)):
                data = event.get("data")
                inside = isinstance(data, dict) and data and chance.random() < 0.75
                place = data if inside else event
                name = chance.choice(list(place))
                place[name] = json.loads(json.dumps(chance.choice(VALUES[4:] + VALUES[:4])))
        lines.append(json.dumps(event).encode())
    if chance.random() < 0.3:
        chance.shuffle(lines)
    return b"\n".join(lines)


def events_of(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, gzip.decompress(path.read_bytes()).splitlines())


@pytest.mark.parametrize("seed", range(24))
def test_a_report_is_written_whatever_the_events_carry(seed: int, tmp_path: Path) -> None:
    files = sorted(FAULTS.glob("*.jsonl.gz"))
    file = tmp_path / "run.jsonl"
    file.write_bytes(spoiled(list(events_of(files[seed % len(files)])), random.Random(seed)))
    runs, _ = read_runs([file])
    for run in runs:
        report = explain(run, LATER)
        page = render.page("Runs", render.section(report))
        text = render.markdown(report)
        json.loads(as_json(report))
        (text + page).encode()
        assert "<script" not in page
        assert "](http" not in text
        assert "\x1b" not in text + page
    if runs:
        compare(runs[0], runs[-1])


def test_one_hostile_line_does_not_hide_the_others(tmp_path: Path) -> None:
    with recording("run2b") as path:
        events = list(events_of(path))
    hostile = []
    for number, value in enumerate(VALUES):
        for event in (events[1], next(e for e in events if "phases" in e["data"])):
            spoilt = json.loads(json.dumps(event)) | {"event_id": f"h{number}", "timestamp": value}
            spoilt["data"] |= {"phases": {'"': {"wall_ms": value}, "x'y": value}, "env_id": value}
            hostile.append(spoilt | {"group_id": value, "seed_id": value, "message": value})
    deep = b'{"event_type": "TRAINING_STARTED", "data": ' + b"[" * 100_000
    long = b'{"event_type": "SEED_PRUNED", "message": "' + b"x" * (9 << 20) + b'"}'
    lines = [json.dumps(event).encode() for event in (*events, *hostile)]
    (tmp_path / "run.jsonl").write_bytes(b"\n".join([deep, long, *lines]))
    loaded = load(tmp_path / "run.jsonl")
    views = loaded.connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal"
    ).fetchall()
    for (view,) in views:
        loaded.connection.execute(f'SELECT * FROM "{view}"').fetchall()
    mine = "SELECT count(*) FROM raw_events WHERE NOT starts_with(event_id, 'h')"
    assert loaded.connection.execute(mine).fetchall() == [(len(events),)]


REFUSED = [
    "COPY (SELECT 1) TO 'esper-exporter-written'",
    "ATTACH 'esper-exporter-written.db'",
    "EXPORT DATABASE 'esper-exporter-written'",
    "IMPORT DATABASE '/tmp'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''esper-exporter-written''')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CREATE SECRET x (TYPE s3)",
    "DELETE FROM latch_facts",
    "/**/EXPLAIN/**/ANALYZE DROP VIEW runs",
    "SELECT * FROM VALUES",
]


def test_an_assistant_cannot_write_or_read_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esper_exporter.journal.query import QueryRefused, run_query

    monkeypatch.chdir(tmp_path)
    with recording("run2b") as path:
        connection = load(path, comments=False).connection
    for query in REFUSED:
        with pytest.raises(QueryRefused):
            run_query(connection, query, seconds=20.0, most=10)
    assert list(tmp_path.iterdir()) == []


def test_no_more_rows_are_computed_than_are_shown() -> None:
    from esper_exporter.journal.query import run_query

    with recording("run2b") as path:
        connection = load(path, comments=False).connection
    found = run_query(connection, "SELECT * FROM range(3000000000000)", seconds=20.0, most=10)
    assert len(found) == 10
