"""What the page shows of an ended process: how it ended, and which values remain meaningful."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from esper_exporter.agent.exit_status import Exit
from esper_exporter.agent.layout_log import Family
from esper_exporter.agent.page_view import Lines, PageView, RunKey
from esper_exporter.metrics.table import Values

ACTIVE, FINISHED, FAILED = "esper_run_active", "esper_run_finished", "esper_run_failed"
ENDED_AT = "esper_run_end_timestamp_seconds"
_KEPT = re.compile(
    r"_latched$|_nonfinite_|_timestamp_seconds$|^esper_run_(active|failed|finished|exit)"
)


def unfinished_runs(view: PageView, values: Values) -> list[RunKey]:
    """The runs that were active at the page's last publication."""
    found = []
    for run, start, columns in view.rows_of(FAILED):
        ended = 0.0
        active = 0.0
        for place, column in enumerate(columns):
            name = _name(view, column.family)
            value = float(values[start + place])
            if name in (FAILED, FINISHED):
                ended = max(ended, value) if value == value else ended
            elif name == ACTIVE:
                active = value
        if active == 1.0 and ended != 1.0:
            found.append(run)
    return found


def failed_runs(view: PageView, values: Values) -> set[str]:
    """The failure reasons that the page's runs report."""
    reasons = set()
    for _, start, columns in view.rows_of(FAILED):
        for place, column in enumerate(columns):
            if _name(view, column.family) == FAILED and values[start + place] == 1.0:
                reasons.add(dict(column.labels).get("reason", ""))
    return reasons


def with_end(view: PageView, values: Values, runs: list[RunKey], end: Exit) -> Values:
    """The values of an ended process's page: mark these runs as failed with the reason, or as
    finished if it is empty.

    A reason that the page's version does not know is ``unknown`` there.
    """
    changed = values.copy()
    for run, start, columns in view.rows_of(FAILED):
        if run not in runs:
            continue
        reasons = {
            dict(column.labels).get("reason")
            for column in columns
            if _name(view, column.family) == FAILED
        }
        wanted = end.reason if end.reason in reasons or not end.reason else "unknown"
        for place, column in enumerate(columns):
            name = _name(view, column.family)
            if name == FAILED:
                changed[start + place] = float(dict(column.labels).get("reason") == wanted)
            elif name == FINISHED:
                changed[start + place] = float(not end.reason)
            elif name == ACTIVE:
                changed[start + place] = 0.0
            elif name == ENDED_AT:
                changed[start + place] = end.at
    return changed


def _name(view: PageView, family: int) -> str:
    return view.schema.families[family].name if view.schema is not None else ""


def hidden_after_death(lines: Lines, families: tuple[Family, ...], seen: bool) -> NDArray[np.bool_]:
    """The lines to hide once the page's process is gone.

    At once the process's own measurements; once every regular scraper has fetched the end, also
    the momentary gauges. Counters, latches, times and how the run ended stay.
    """
    of_moment = np.array(
        [family.kind == "gauge" and not _KEPT.search(family.name) for family in families], np.bool_
    )
    of_process = np.array([not family.of_run for family in families], np.bool_)
    hidden = of_moment & (of_process | seen)
    return hidden[lines.families]
