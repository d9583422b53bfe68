"""Everything of a run: what no other dashboard shows, a panel for each metric family.

It is generated from the catalogue, so that every exported metric can be looked at. Its rows
are closed and cost no query until one is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from grafana.generator.frame import INSTANCE, of_runs
from grafana.generator.model import Dashboard, Panel, Row, Target
from grafana.generator.panels import RUN_NAME, series
from grafana.generator.queries import (
    PROCESS,
    RUN,
    SCOPE,
    WHERE,
    by,
    mean_of_histogram,
    over_range,
    rate,
    select,
    total,
)
from grafana.generator.tables import column, table

from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import Metric, columns_of

UNITS = {
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "percentunit",
    "celsius": "celsius",
    "watts": "watt",
    "hertz": "hertz",
    "joules": "joule",
    "nats": "suffix: nats",
}
ROWS = {
    "run": "Run",
    "tamiyo": "Tamiyo: the policy",
    "tolaria": "Tolaria: host training",
    "kasmina": "Kasmina: seeds",
    "simic": "Simic: reward and fitness",
    "rank": "Ranks",
    "torch": "torch",
    "gpu": "GPUs",
    "host": "Host",
    "exporter": "Exporter",
    "agent": "Agent",
    "": "Process and Python",
}
MOST_LINES = 12
A_SECOND = "suffix: /s"
"""What a counter is shown as."""


def dashboard(others: Iterable[Dashboard]) -> Dashboard:
    """The dashboard of the families that no query of ``others`` names."""
    asked = " ".join(
        target.expr
        for board in others
        for row in board.rows
        for panel in row.panels
        for target in panel.targets
    )
    named = set(re.findall(r"[a-z_][a-z0-9_]*", asked))
    rest = [
        m for m in catalogue().metrics if not named & {m.name + c.suffix for c in columns_of(m)}
    ]
    rows = []
    for domain, title in ROWS.items():
        panels = tuple(_panel(metric) for metric in rest if _domain(metric) == domain)
        if panels:
            rows.append(Row(title, panels, closed=True))
    return of_runs(
        "esper-run",
        "esper · Everything of a run",
        "Each metric that no other dashboard shows, by where it comes from. Open a row to ask.",
        tuple(rows),
        INSTANCE,
    )


def _domain(metric: Metric) -> str:
    prefix, _, rest = metric.name.partition("_")
    domain = rest.partition("_")[0]
    return domain if prefix == "esper" and domain in ROWS else ""


def _unit(metric: Metric) -> str:
    words = metric.name.removesuffix("_total").split("_")
    return A_SECOND if metric.kind == "counter" else UNITS.get(words[-1], "short")


def _panel(metric: Metric) -> Panel:
    """A family over time: the highest of its ranks, a counter a second, a histogram's mean."""
    column_labels = {label for each in columns_of(metric) for label, _ in each.labels} - {"le"}
    labels = dict.fromkeys((*metric.labels, *sorted(column_labels)))
    own = tuple(label for label in labels if label not in (*RUN, "rank"))
    of_run = "run_id" in metric.labels
    grouped = "group_id" in metric.labels
    owner: tuple[str, ...] = (RUN if grouped else RUN[:1]) if of_run else ("instance",)
    scope = (SCOPE if grouped else f'{WHERE},run_id=~"$run"') if of_run else PROCESS
    name = (RUN_NAME if grouped else "{{run_id}}") if of_run else "{{instance}}"
    legend = " ".join((*(f"{{{{{label}}}}}" for label in own), name))
    said = f"{metric.help} Good and bad depend on the run: compare with one that went well."
    title = metric.name.removeprefix("esper_")
    if metric.kind == "info":
        keys = {label: label for label in (*owner, *own)}
        last = over_range("last_over_time", select(metric.name, scope))
        return table(
            title,
            keys,
            (column("Info", by("max", (*owner, *own), last)),),
            said,
            width=12,
            hidden=("Info",),
        )
    if metric.kind == "counter":
        query = total(metric.name, (*owner, *own), rate, scope)
    elif metric.kind == "histogram" and metric.buckets[0] >= 0 and grouped:
        query = mean_of_histogram(metric.name, *own, scope=scope)
    elif metric.kind == "histogram":
        query = total(f"{metric.name}_bucket", (*owner, *own), rate, scope, le="+Inf")
    elif metric.name.endswith("_timestamp_seconds"):
        query = f"time() - {by('max', (*owner, *own), select(metric.name, scope))}"
        said = f"Age of: {said}"
    else:
        query = by("max", (*owner, *own), select(metric.name, scope))
    return series(
        title,
        Target(f"topk({MOST_LINES}, {query})", legend),
        f"{said} At most {MOST_LINES} lines, the highest.",
        unit=_unit(metric),
        # The longest name has room at 900 pixels.
        width=12,
        height=6,
    )
