"""Why a field is not exported: the reasons, in words that several fields share."""

from __future__ import annotations

from collections.abc import Iterable

from esper_exporter.contract.vocabulary import SPELLINGS

DECISION_HEADS = tuple(SPELLINGS.values())
"""The heads as decisions spell them."""

HISTORY = "a history: Prometheus keeps it of the value that is exported"
PEAK = "a copy of live fields at the moment of the best accuracy; the live fields are exported"
COUNTED = "carried by a counter: "
LABEL = "it is a label, not a value"
POSITION = "says when it happened; the sample's own time does"
SAME = "the same as "
WALL_CLOCK = "goes by the clock of the aggregating process; "
VITALS = "the real aggregator reads it only while its page is open, and mostly never fills it; "
BY_OP = "exported by operation, as "
TUI = "concerns the terminal UI, not the run"
IDENTITY = "identifies one happening; never a label, it would be unbounded"
DECISION = "single decisions are not series; histograms over all decisions and the last decision's "
STATE = "reaches the snapshot, where it is exported: "
TEXT_ONLY = "kept in esper_run_info or not a measurement"


def each(reason: str, kind: str, names: Iterable[str]) -> dict[str, str]:
    """The same reason for several fields of one class."""
    return {f"{kind}.{name}": reason for name in names}
