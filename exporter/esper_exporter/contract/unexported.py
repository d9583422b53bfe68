"""Why a field is not exported: reasons that several fields share, in words.

A payload or state class names its fields that no metric shows in `unexported`, below its fields: a
reason, and its fields. A field that holds other payloads stands for all of theirs.
"""

from __future__ import annotations

Unexported = dict[str, str]
"""Reason → names of fields, separated by spaces."""

HISTORY = "a history; Prometheus keeps one of the exported value"
PEAK = "a copy of live fields at the best accuracy; the live fields are exported"
COUNTED = "counted in "
LABEL = "a label, not a value"
POSITION = "where in the run the event belongs, not a measurement"
SAME = "the same as "
WALL_CLOCK = "depends on the clock of the aggregating process; "
VITALS = "read only while the trainer's own page is open; "
BY_OP = "exported by operation, as "
TUI = "concerns the terminal UI, not the run"
IDENTITY = "identifies one event; as a label it would be unbounded"
DECISION = "single decisions are not series; histograms over all decisions and the last decision's "
STATE = "exported from the snapshot: "
TEXT_ONLY = "in esper_run_info, or not a measurement"
