"""Non-finite sources, and the updates skipped for them, as tables for SQL.

Both ways to a latch are followed, as on the exporter's page: the flags of an update that was hit in
part, and the text of the anomaly that reports a skipped update.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from esper_exporter.journal.view_parts import relation
from esper_exporter.state.latches import FINITENESS_ANOMALIES, parse_finiteness_detail

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_OF_RUN = "run_id group_id rank:int source"
_LATCHES = (
    "nonfinite_source head kind updates:int first_timestamp:time last_timestamp:time"
    " first_update:int"
)
_SKIPS = "seq:int timestamp:time batch:int anomaly_type heads:texts sources:texts detail"
"""Columns of the tables, text unless another type follows the colon."""

Key = tuple[str, str, int, str]
"""(run, group, rank, source)."""


def latch_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """The tables ``latch_facts`` and ``skip_facts``."""
    columns = "_run_id, _group_id, _rank, _source, _seq, _timestamp"
    events: list[tuple[Any, ...]] = connection.execute(
        f"SELECT {columns}, 'flags', batch, NULL, NULL, map_entries(head_nan_detected),"
        f" map_entries(head_inf_detected) FROM {relation('TAMIYO_POLICY_UPDATE')}"
        " WHERE list_contains(map_values(head_nan_detected), true)"
        " OR list_contains(map_values(head_inf_detected), true)"
        f" UNION ALL SELECT {columns}, 'text', NULL, anomaly_type, detail, NULL, NULL"
        f" FROM {relation('NUMERICAL_INSTABILITY_DETECTED')}"
        " WHERE anomaly_type LIKE 'ppo_finiteness_%'"
        f" UNION ALL SELECT {columns}, 'batch', batch_idx, NULL, NULL, NULL, NULL"
        f" FROM {relation('TOLARIA_BATCH_COMPLETED')} ORDER BY 4, 5"
    ).fetchall()
    latches: dict[tuple[Key, str, str, str], list[tuple[datetime | None, int | None]]] = {}
    skips: list[tuple[Any, ...]] = []
    batches: dict[Key, int] = {}
    for run, group, rank, source, seq, when, way, batch, kind, detail, nans, infs in events:
        key: Key = (run, group, rank, source)
        if way == "batch":
            batches[key] = batch
            continue
        # A skip's own batch number is 0: it is the one after the last that ended.
        number = batch if way == "flags" else batches.get(key, 0) + 1
        hit: set[tuple[str, str, str]] = set()
        for name, entries in (("nan", nans), ("inf", infs)):
            for entry in entries or ():
                head, up = entry.values() if isinstance(entry, dict) else entry
                if up:
                    hit |= {("log_probs", head, name)}
        if way == "text" and kind in FINITENESS_ANOMALIES:
            for finding in parse_finiteness_detail(detail or ""):
                hit |= {(finding.source, finding.head or "", name) for name in finding.kinds}
            heads = sorted({head for _, head, _ in hit if head})
            sources = sorted({each for each, _, _ in hit})
            skips.append((*key, seq, when, number, kind, heads, sources, detail))
        for each in hit:
            latches.setdefault((key, *each), []).append((when, number))
    lit = [
        (*key, nonfinite, head or None, kind, len(seen), seen[0][0], seen[-1][0], seen[0][1])
        for (key, nonfinite, head, kind), seen in sorted(latches.items(), key=lambda each: each[0])
    ]
    return {"latch_facts": _table(_LATCHES, lit), "skip_facts": _table(_SKIPS, skips)}


def _table(columns: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    import pyarrow as pa

    types = {"int": pa.int64(), "time": pa.timestamp("us"), "texts": pa.list_(pa.string())}
    pairs = [column.partition(":")[::2] for column in f"{_OF_RUN} {columns}".split()]
    schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in pairs])
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
