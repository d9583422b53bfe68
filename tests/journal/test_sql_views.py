"""The views: Appendix B's dependency graph under both names, and what the events add up to."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from esper_exporter.contract.event_table import ALIASES
from esper_exporter.demo.bundled import recording
from esper_exporter.sql import SourceError, connect

SEEDS = {"SEED_GERMINATED", "SEED_STAGE_CHANGED", "SEED_FOSSILIZED", "SEED_PRUNED"}
ANOMALIES = {
    "VALUE_COLLAPSE_DETECTED",
    "RATIO_EXPLOSION_DETECTED",
    "RATIO_COLLAPSE_DETECTED",
    "GRADIENT_ANOMALY",
    "GRADIENT_PATHOLOGY_DETECTED",
    "NUMERICAL_INSTABILITY_DETECTED",
    "TOLARIA_ROLLBACK",
    "PLATEAU_DETECTED",
}


RECORDED = ("run1", "run2b", *(("demo",) if find_spec("torch") else ()))


@contextmanager
def telemetry_of(name: str) -> Iterator[Path]:
    """A recording, or what the demo trains now."""
    if name != "demo":
        with recording(name) as path:
            yield path
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / "demo" / "events.jsonl"
        file.parent.mkdir()
        command = [sys.executable, "-m", "esper_exporter", "demo", "--port", "0", "--envs", "2"]
        command += ["--epochs", "6", "--updates", "2", "--inject", "nan:tempo@2"]
        command += ["--telemetry-file", str(file)]
        subprocess.run(command, check=False, timeout=400, capture_output=True)
        yield file


@cache
def recorded(name: str) -> tuple[list[dict[str, Any]], Any]:
    """The events of a recording, and a connection to it."""
    with telemetry_of(name) as path:
        return events_of(path), connect(path)


GRAPH: dict[str, tuple[tuple[str, ...], Any, dict[str, str]]] = {
    "raw_events": ((), lambda kind, data: True, {}),
    "runs": ((), lambda kind, data: kind == "TRAINING_STARTED", {"n_envs": "n_envs"}),
    "tolaria_epochs": (
        ("epochs",),
        lambda kind, data: kind == "TOLARIA_EPOCH_COMPLETED",
        {"val_accuracy": "val_accuracy", "val_loss": "val_loss"},
    ),
    "tamiyo_updates": (
        ("ppo_updates",),
        lambda kind, data: kind == "TAMIYO_POLICY_UPDATE",
        {"grad_norm": "grad_norm", "entropy": "entropy", "head_op_entropy": "head_op_entropy"},
    ),
    "tolaria_batches": (
        ("batches", "batch_epochs"),
        lambda kind, data: kind == "TOLARIA_BATCH_COMPLETED",
        {"avg_accuracy": "avg_accuracy", "avg_reward": "avg_reward"},
    ),
    "seed_lifecycle": ((), lambda kind, data: kind in SEEDS, {"env_id": "env_id"}),
    "decisions": (
        (),
        lambda kind, data: data.get("kind") == "last_action",
        {"value_estimate": "value_estimate"},
    ),
    "rewards": (
        (),
        lambda kind, data: data.get("kind") == "last_action",
        {"total_reward": "total_reward"},
    ),
    "anomalies": ((), lambda kind, data: kind in ANOMALIES, {}),
    "episode_outcomes": (
        (),
        lambda kind, data: kind == "EPISODE_OUTCOME",
        {"episode_reward": "episode_reward", "final_accuracy": "final_accuracy"},
    ),
}
"""View → its other names, which events are its rows, and columns that are summed."""


def events_of(path: Path) -> list[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def total(values: list[Any]) -> float:
    return sum(value for value in values if value is not None and math.isfinite(value))


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("view", GRAPH)
def test_a_view_has_a_row_for_each_of_its_events_under_every_name(name: str, view: str) -> None:
    aliases, belongs, sums = GRAPH[view]
    events, connection = recorded(name)
    rows = [
        event
        for event in events
        if belongs(ALIASES.get(event["event_type"], event["event_type"]), event.get("data") or {})
    ]
    for each in (view, *aliases):
        assert connection.execute(f"SELECT count(*) FROM {each}").fetchall() == [(len(rows),)]
        assert rows or view in ("anomalies", "seed_lifecycle")
        for column, reported in sums.items():
            found = connection.execute(f"SELECT {column} FROM {each}").fetchall()
            expected = total([(event["data"] or {}).get(reported) for event in rows])
            assert total([value for (value,) in found]) == pytest.approx(expected)


def test_an_event_emitted_under_both_names_is_one_row(tmp_path: Path) -> None:
    with recording("run2b") as path:
        events = events_of(path)
    new = dict(ALIASES)
    file = tmp_path / "dual.jsonl"
    with file.open("w") as out:
        for event in events:
            out.write(json.dumps(event) + "\n")
            if event["event_type"] in new:
                twin = {**event, "event_type": new[event["event_type"]], "event_id": None}
                out.write(json.dumps(twin) + "\n")
    connection = connect(file)
    counts = Counter(event["event_type"] for event in events)
    for view, kind in (
        ("tamiyo_updates", "PPO_UPDATE_COMPLETED"),
        ("tolaria_epochs", "EPOCH_COMPLETED"),
        ("tolaria_batches", "BATCH_EPOCH_COMPLETED"),
    ):
        assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() == [(counts[kind],)]


def test_the_latches_and_skipped_updates_of_run2b_are_rows() -> None:
    _, connection = recorded("run2b")
    found = connection.execute("SELECT head, kind, updates, first_update FROM latches ORDER BY 1")
    assert found.fetchall() == [("op", "nan", 2, 5), ("tempo", "nan", 1, 3)]
    skipped = connection.execute("SELECT batch, heads FROM skipped_updates ORDER BY seq")
    assert skipped.fetchall() == [(3, ["tempo"]), (5, ["op"]), (6, ["op"])]


def test_columns_say_their_units() -> None:
    _, connection = recorded("run2b")
    units = dict(
        connection.execute(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'ppo_updates'"
        ).fetchall()
    )
    assert units["update_time_ms"] == "milliseconds"
    assert units["clip_fraction"] == "ratio, 0 to 1"


@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_a_folder_of_runs_is_read_whatever_its_files_are_compressed_with(
    tmp_path: Path, compression: str
) -> None:
    with recording("run2b") as path:
        text = gzip.decompress(path.read_bytes())
    folder = tmp_path / "a'b; DROP TABLE runs" / "seed 1"
    folder.mkdir(parents=True)
    if compression == "plain":
        (folder / "events.jsonl").write_bytes(text)
    elif compression == "gzip":
        (folder / "events.jsonl.gz").write_bytes(gzip.compress(text))
    else:
        import pyarrow as pa

        packed = pa.compress(text, codec="zstd", asbytes=True)
        (folder / "events.jsonl.zst").write_bytes(packed)
    connection = connect(tmp_path)
    assert connection.execute("SELECT count(*) FROM raw_events").fetchall() == [(776,)]
    assert connection.execute("SELECT DISTINCT run_dir FROM runs").fetchall() == [("seed 1",)]


def test_bad_lines_of_a_hostile_file_are_counted(tmp_path: Path) -> None:
    with recording("run2b") as path:
        good = gzip.decompress(path.read_bytes()).splitlines()
    bad = [
        b"not json",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b'{"event_type": "NO_SUCH_EVENT", "data": {}}',
        b'{"event_type": "TAMIYO_POLICY_UPDATE", "data": {"policy_loss": 1}}',
        b'{"event_type": ["TRAINING_STARTED"], "data": {}}',
        b'{"a":' * 5000,
        b'{"data": {"event_type": "TRAINING_STARTED"}, "event_type": "nothing"}',
    ]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join([*bad, *good]))
    from esper_exporter.sql import load

    loaded = load(file)
    found = loaded.connection.execute("SELECT count(*) FROM raw_events").fetchall()
    assert found == [(len(good),)]
    assert "8 lines could not be used" in loaded.warnings[0]


def test_a_source_that_holds_no_event_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("hello\n")
    with pytest.raises(SourceError, match="no line is a usable telemetry event"):
        connect(tmp_path / "x.jsonl")
    with pytest.raises(SourceError, match="No such file"):
        connect(tmp_path / "missing")


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO 'esper-exporter-written'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "ATTACH 'esper-exporter-attached.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "EXPORT DATABASE 'esper-exporter-exported'",
        "SELECT glob('/etc/*')",
    ],
)
def test_a_connection_reads_and_writes_no_other_file(query: str) -> None:
    import duckdb

    _, connection = recorded("run2b")
    with pytest.raises(duckdb.Error):
        connection.execute(query).fetchall()
