"""Which rows of telemetry the exporter would accept: complete ones, and each event once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esper_exporter.journal.columns import Table

if TYPE_CHECKING:
    import pyarrow as pa

IDS = 65_536
"""The number of newest event ids, at least, that detect a repeated delivery."""


class Acceptance:
    """Remembers ids of events; rows come in their order, in pieces of one type."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._ids_before: set[str] = set()
        self._ids_of_kind: dict[str, set[str]] = {}
        self.repeated = 0
        """Rows that were delivered before."""
        self.incomplete = 0
        """Rows that lack a required field."""

    def accepted(self, table: Table, found: pa.Table) -> pa.Table:
        """The rows without those that the exporter would refuse or has seen before."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        keep = np.ones(len(found), dtype=bool)
        if not table.may_be_empty and any(found[name].null_count for name in table.required):
            for name in table.required:
                keep &= ~pc.is_null(found[name]).to_numpy(zero_copy_only=False)
            keep |= _reports_fault(table, found)
            self.incomplete += int((~keep).sum())
        ids = found["_event_id"].to_pylist()
        news = set(ids)
        # Another piece of the same type may have come long after the one before.
        before = self._ids_of_kind.get(table.type, set())
        self._ids_of_kind[table.type] = news
        if len(self._ids) >= IDS:
            self._ids_before, self._ids = self._ids, set()
        known = (self._ids, self._ids_before, before)
        fresh = all(each.isdisjoint(news) for each in known)
        if fresh and keep.all() and len(news) == len(ids) and None not in news:
            self._ids |= news
            return found
        for place, event_id in enumerate(ids):
            if event_id is None or not keep[place]:
                continue
            if any(event_id in each for each in known):
                keep[place] = False
                self.repeated += 1
            else:
                self._ids.add(event_id)
        return found if keep.all() else found.filter(pa.array(keep))


def _reports_fault(table: Table, found: pa.Table) -> Any:
    """Keep rows that name a NaN or an Inf, complete or not."""
    import numpy as np

    if table.type == "NUMERICAL_INSTABILITY_DETECTED":
        return np.array(
            [
                bool(detail) and (kind or "").startswith("ppo_finiteness_")
                for kind, detail in zip(
                    found["anomaly_type"].to_pylist(), found["detail"].to_pylist(), strict=True
                )
            ]
        )
    if table.type == "TAMIYO_POLICY_UPDATE":
        columns = [found[f"head_{kind}_detected"].to_pylist() for kind in ("nan", "inf")]
        return np.array(
            [any(up for _, up in (*(a or ()), *(b or ()))) for a, b in zip(*columns, strict=True)]
        )
    return np.zeros(len(found), dtype=bool)
