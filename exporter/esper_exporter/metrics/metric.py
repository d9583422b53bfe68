"""What one metric is: its name, type, meaning, labels and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from esper_exporter.state.counters import Counter, Histogram

Kind = Literal["gauge", "counter", "histogram", "info"]

RUN_LABELS = ("run_id", "group_id", "rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family of the catalogue.

    ``name`` is the name on the page (counters end in ``_total``, infos in ``_info``).
    ``block`` names the kind of thing a row describes (a run, a head, an environment …) and with it
    the labels that vary from row to row. ``sources`` are where the value comes from: a path into
    the snapshot, ``event:TYPE.field``, or ``derived: …``. For a plain source the sample is
    ``scale`` × the value found there, exactly.

    ``read`` replaces the plain look-up where absence needs a rule ("0 means not measured") or
    where the value is derived; it gets the block's root object and returns None for "absent".
    ``reads_base_units`` says that it is scaled already, since sources of several units meet there.
    ``states`` makes the family a one-hot: one column a state, labelled ``state_label``.
    ``buckets`` are the upper bounds of a histogram, without ``+Inf``. ``zero_is_absent`` marks
    what the source leaves at 0 when it did not measure. ``counted`` is what the state counts in.
    """

    name: str
    kind: Kind
    help: str
    block: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    scale: float = 1.0
    read: Callable[[Any], Any] | None = None
    reads_base_units: bool = False
    zero_is_absent: bool = False
    states: tuple[str, ...] = ()
    state_label: str = ""
    buckets: tuple[float, ...] = ()
    counted: Counter | Histogram | None = None

    @property
    def family(self) -> str:
        """The family's name in OpenMetrics, without the suffix of its type."""
        for suffix in ("_total", "_info"):
            if self.kind in ("counter", "info") and self.name.endswith(suffix):
                return self.name.removesuffix(suffix)
        return self.name

    @property
    def reserved_names(self) -> tuple[str, ...]:
        """The family's name and the names its samples may have, in either format.

        OpenMetrics 1.0.0: no other family may use any of them.
        """
        suffixes = {
            "gauge": (),
            "info": ("_info",),
            "counter": ("_total", "_created"),
            "histogram": ("_bucket", "_sum", "_count", "_created"),
        }[self.kind]
        return (self.family, *(self.family + suffix for suffix in suffixes))


@dataclass(frozen=True, slots=True)
class Column:
    """One cell of a row: a metric's sample, with its own suffix and fixed labels."""

    metric: Metric
    suffix: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def format_bound(bound: float) -> str:
    """A bucket bound or any other float, as Go and prometheus_client write it in a label."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


def columns_of(metric: Metric) -> tuple[Column, ...]:
    """The cells that one row of the metric's block holds for it, in page order."""
    if metric.kind == "histogram":
        bounds = (*metric.buckets, float("inf"))
        buckets = tuple(Column(metric, "_bucket", (("le", format_bound(b)),)) for b in bounds)
        # OpenMetrics: a sum of values that may be negative is no counter, so there is none then,
        # and no count without a sum; the +Inf bucket is the count.
        if metric.buckets[0] < 0:
            return buckets
        return (*buckets, Column(metric, "_sum"), Column(metric, "_count"))
    if metric.states:
        return tuple(Column(metric, "", ((metric.state_label, s),)) for s in metric.states)
    return (Column(metric),)
