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

Key = tuple[str, str, int, str]
"""(run, group, rank, source)."""


def latch_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """The tables ``latch_facts`` and ``skip_facts``."""
    import pyarrow as pa

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
    skips: list[dict[str, Any]] = []
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
            skips.append(
                {
                    "run_id": run,
                    "group_id": group,
                    "rank": rank,
                    "source": source,
                    "seq": seq,
                    "timestamp": when,
                    "batch": number,
                    "anomaly_type": kind,
                    "heads": sorted({head for _, head, _ in hit if head}),
                    "sources": sorted({each for each, _, _ in hit}),
                    "detail": detail,
                }
            )
        for each in hit:
            latches.setdefault((key, *each), []).append((when, number))
    rows = [
        {
            "run_id": key[0],
            "group_id": key[1],
            "rank": key[2],
            "source": key[3],
            "nonfinite_source": source,
            "head": head or None,
            "kind": kind,
            "updates": len(seen),
            "first_timestamp": seen[0][0],
            "last_timestamp": seen[-1][0],
            "first_update": seen[0][1],
        }
        for (key, source, head, kind), seen in sorted(latches.items(), key=lambda each: each[0])
    ]
    stamp = pa.timestamp("us")
    common = [("run_id", pa.string()), ("group_id", pa.string()), ("rank", pa.int64())]
    latch_schema = pa.schema(
        [
            *common,
            ("source", pa.string()),
            ("nonfinite_source", pa.string()),
            ("head", pa.string()),
            ("kind", pa.string()),
            ("updates", pa.int64()),
            ("first_timestamp", stamp),
            ("last_timestamp", stamp),
            ("first_update", pa.int64()),
        ]
    )
    skip_schema = pa.schema(
        [
            *common,
            ("source", pa.string()),
            ("seq", pa.int64()),
            ("timestamp", stamp),
            ("batch", pa.int64()),
            ("anomaly_type", pa.string()),
            ("heads", pa.list_(pa.string())),
            ("sources", pa.list_(pa.string())),
            ("detail", pa.string()),
        ]
    )
    return {
        "latch_facts": pa.Table.from_pylist(rows, schema=latch_schema),
        "skip_facts": pa.Table.from_pylist(skips, schema=skip_schema),
    }
