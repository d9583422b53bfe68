"""The command ``esper-exporter sql``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from esper_exporter.journal.examples import EXAMPLES
from esper_exporter.journal.query import QueryRefused, run_query
from esper_exporter.sql import connect


@pytest.fixture(scope="module")
def connection() -> Any:
    with recording("run2b") as path:
        return connect(path)


@pytest.fixture(scope="module")
def run1() -> str:
    with recording("run1") as path:
        return str(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_answers_and_is_in_the_documentation(
    name: str, run1: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["sql", run1, "--example", name]) == 0
    answer = capsysbinary.readouterr().out.decode()
    assert "row" in answer
    documented = Path(__file__).parents[2].joinpath("docs", "SQL.md").read_text()
    assert EXAMPLES[name].query in documented
    assert answer.strip() in documented


def test_a_query_is_distinguished_from_a_source(
    run1: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = "SELECT count(*) AS n FROM raw_events"
    assert main(["sql", run1, query, "--format", "csv"]) == 0
    assert capsysbinary.readouterr().out == b"n\n7412\n"
    assert main(["sql", run1, query, "--format", "json"]) == 0
    assert json.loads(capsysbinary.readouterr().out) == {"n": 7412}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_binary_formats_can_be_read_again(run1: str, form: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "result"
    query = "SELECT batch, grad_norm FROM tamiyo_updates ORDER BY seq"
    assert main(["sql", run1, query, "--format", form, "--output", str(out)]) == 0
    found = (
        pq.read_table(out)
        if form == "parquet"
        else pa.ipc.open_stream(io.BytesIO(out.read_bytes())).read_all()
    )
    assert found["batch"].to_pylist() == list(range(1, 15))


def test_list_and_describe(run1: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["sql", run1, "--list"]) == 0
    listed = capsysbinary.readouterr().out.decode()
    assert "tamiyo_updates" in listed
    assert "ppo_updates" in listed
    assert main(["sql", run1, "--describe", "decisions"]) == 0
    assert "probability, 0 to 1" in capsysbinary.readouterr().out.decode()
    assert main(["sql", run1, "--describe", "x' OR 1=1 --"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO 'esper-exporter-written'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW runs",
        "SELECT 1; SELECT 2",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'esper-exporter-written'",
        "PRAGMA version",
        "SET memory_limit = '1TB'",
        "this is no query",
        "SELECT * FROM read_csv('/etc/passwd')",
    ],
)
def test_a_statement_that_does_more_than_read_is_refused(query: str, connection: Any) -> None:
    with pytest.raises(QueryRefused):
        run_query(connection, query)
    assert not Path("esper-exporter-written").exists()


def test_a_query_that_takes_too_long_is_ended(connection: Any) -> None:
    with pytest.raises(QueryRefused, match="longer than"):
        run_query(
            connection,
            "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7",
            seconds=0.3,
        )
