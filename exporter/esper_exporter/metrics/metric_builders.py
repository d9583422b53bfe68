"""How the catalogue's tables are written: one short line a metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from esper_exporter.metrics.metric import RUN_LABELS, Kind, Metric
from esper_exporter.state.counters import Counter, Histogram

BLOCK_LABELS: dict[str, tuple[str, ...]] = {
    "exporter": (),
    "collector": ("collector",),
    "run": RUN_LABELS,
    "policy": RUN_LABELS,
    "observations": RUN_LABELS,
    "head": (*RUN_LABELS, "head"),
    "head_latch": (*RUN_LABELS, "head", "kind"),
    "source_latch": (*RUN_LABELS, "source"),
    "op": (*RUN_LABELS, "op"),
    "stage": (*RUN_LABELS, "stage"),
    "layer": (*RUN_LABELS, "layer"),
    "layer_norm": (*RUN_LABELS, "layer"),
    "layer_fault": (*RUN_LABELS, "layer", "source", "kind"),
    "seam": ("seam",),
    "env": (*RUN_LABELS, "env_id"),
    "slot": (*RUN_LABELS, "env_id", "slot_id"),
    "shapley": (*RUN_LABELS, "env_id", "slot_id"),
    "best_run": (*RUN_LABELS, "place"),
    "device": (*RUN_LABELS, "device"),
    "env_blueprint": (*RUN_LABELS, "env_id", "blueprint"),
    "gpus": (),
    "gpu": ("gpu", "uuid"),
    "gpu_ecc": ("gpu", "uuid", "kind", "scope"),
    "gpu_xid": ("gpu", "uuid", "xid"),
    "gpu_mig": ("gpu", "uuid", "mig_uuid"),
    "gpu_use": (*RUN_LABELS, "uuid", "ordinal"),
    "host": (),
    "disk": ("directory",),
    "process": (),
    "agent": (),
    "agent_process": ("run_id", "rank"),
    "run_exit": ("run_id", "rank"),
}
"""The labels of each kind of row. Counters, histograms and infos have separate blocks."""

UNIT_SUFFIXES = (
    "seconds",
    "bytes",
    "ratio",
    "nats",
    "epochs",
    "params",
    "hertz",
    "celsius",
    "watts",
    "joules",
)


def _unit(name: str) -> str:
    last = name.removesuffix("_total").rsplit("_", 1)[-1]
    return last if last in UNIT_SUFFIXES else ""


def _in_block(
    block: str, name: str, kind: Kind, source: str | tuple[str, ...], help: str, **more: Any
) -> Metric:
    """A metric in a row of a block; ``state_label`` is one label more."""
    extra = (more["state_label"],) if "state_label" in more else ()
    return Metric(
        name=name,
        kind=kind,
        help=help,
        block=block,
        unit=_unit(name),
        labels=(*BLOCK_LABELS[block], *extra),
        sources=(source,) if isinstance(source, str) else source,
        **more,
    )


def gauge(
    block: str,
    name: str,
    source: str | tuple[str, ...],
    help: str,
    *,
    scale: float = 1.0,
    zero_is_absent: bool = False,
    read: Callable[[Any], Any] | None = None,
) -> Metric:
    """A gauge in a row of a block."""
    return _in_block(
        block, name, "gauge", source, help, scale=scale, read=read, zero_is_absent=zero_is_absent
    )


def states(
    block: str,
    name: str,
    label: str,
    values: tuple[str, ...],
    source: str,
    help: str,
    read: Callable[[Any], Any],
) -> Metric:
    """A one-hot gauge: 1 for the current state, 0 for the others."""
    return _in_block(
        block, name, "gauge", source, help, read=read, states=values, state_label=label
    )


def split(
    block: str, name: str, label: str, values: tuple[str, ...], source: str, help: str
) -> Metric:
    """A family in a row of a block with one sample for each value of a label, any of which may be
    absent. A counter if its name ends in ``_total``, else a gauge."""
    kind: Kind = "counter" if name.endswith("_total") else "gauge"
    return _in_block(block, name, kind, source, help, states=values, state_label=label)


def counter_in(block: str, name: str, source: str | tuple[str, ...], help: str) -> Metric:
    """A counter in a row of a block, beside gauges: for counts that are kept elsewhere."""
    return _in_block(block, name, "counter", source, help)


def counter(counted: Counter, source: str, help: str) -> Metric:
    """A counter with a row for each set of label values."""
    return _counted("counter", counted, source, help)


def histogram(counted: Histogram, source: str, help: str) -> Metric:
    """A classic histogram with a row for each set of label values."""
    return _counted("histogram", counted, source, help)


def _counted(kind: Kind, counted: Counter | Histogram, source: str, help: str) -> Metric:
    return Metric(
        name=counted.name,
        kind=kind,
        help=help,
        block=counted.name,
        unit=_unit(counted.name),
        labels=(*(RUN_LABELS if counted.of_run else ()), *counted.labels),
        sources=(source,),
        buckets=counted.bounds if isinstance(counted, Histogram) else (),
        counted=counted,
    )


def info(name: str, labels: tuple[str, ...], source: str | tuple[str, ...], help: str) -> Metric:
    """An info metric: always 1, the text is in the labels."""
    return Metric(
        name=name,
        kind="info",
        help=help,
        block=name,
        labels=labels,
        sources=(source,) if isinstance(source, str) else source,
    )
