"""Write docs/SQL.md: the views, and the examples with their answers on run1."""

from __future__ import annotations

from pathlib import Path

from esper_exporter.demo.bundled import recording
from esper_exporter.journal.examples import EXAMPLES
from esper_exporter.journal.query import as_table, run_query
from esper_exporter.journal.views import views
from esper_exporter.sql import connect

HERE = Path(__file__).parents[1] / "docs" / "SQL.md"

HEAD = """# SQL over runs

<!-- Written by scripts/sql_docs.py; run it after a change of the views or the examples. -->

`pip install duckdb pyarrow` brings what it needs. Then

    esper-exporter sql runs/ "SELECT head, kind, first_update FROM latches"
    esper-exporter sql run.jsonl.gz --list
    esper-exporter sql run.jsonl.gz --describe tamiyo_updates
    esper-exporter sql 'runs/*/events.jsonl' --example gradient-norm --format csv
    esper-exporter sql journal/                    # an interactive shell

A source is a file of telemetry (JSON lines; plain, gzip or zstd, whatever its name), a folder of
runs, a journal, a glob, or several of them. `--format` is `table`, `csv`, `json` (one object a
line), `parquet` or `arrow`. In a notebook:

    from esper_exporter.sql import connect
    updates = connect("runs/").sql("SELECT * FROM tamiyo_updates").df()

A connection reads its sources and nothing else: DuckDB's external access is off, its configuration
is locked, its memory is limited (`--memory-limit`). On the command line only a query is run; what
would write is refused. Lines that are no event of the contract are counted, reported on standard
error and left out.

A happening that was emitted under its old and its new name is one row. An event that carries the
wrong group by mistake (`TAMIYO_INITIATED`, `GOVERNOR_ROLLBACK`, `REWARD_HACKING_SUSPECTED` come as
`default`) stands under its run's group. Values have the trainer's units, not the base units of the
exporter's page; a column's comment names the unit. What was not measured is NULL, NaN is NaN.

Where esper-lite has a view as well, the rows are the same, column by column, with one exception:
its `action_distribution` joins batches without their group, so that a run of two groups has each
row twice there.

## Views

"""


def main() -> None:
    """Write the page."""
    reported = [HEAD, "| view | also | shows |\n|---|---|---|\n"]
    for view in views(("TRAINING_STARTED",)):
        also = ", ".join(f"`{alias}`" for alias in view.aliases)
        reported.append(f"| `{view.name}` | {also} | {view.about} |\n")
    reported.append("\n## Examples\n\nEach with its answer on the recording `run1`.\n")
    with recording("run1") as path:
        connection = connect(path)
    for name, example in EXAMPLES.items():
        answer = as_table(run_query(connection, example.query))
        reported.append(
            f"\n### `--example {name}`\n\n{example.question}\n\n"
            f"```sql\n{example.query}\n```\n\n```\n{answer}```\n"
        )
    HERE.write_text("".join(reported), encoding="utf-8")


if __name__ == "__main__":
    main()
