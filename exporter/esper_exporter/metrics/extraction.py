"""From state to rows: each block's values, gathered in one pass and written in one assignment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import attrgetter, itemgetter
from typing import Any

from msgspec import Struct

from esper_exporter.contract.event_table import BY_NAME
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import ABSENT, Block

Roots = Mapping[str, Any]

# Which object a plain source starts from, by block; the rest of the source is an attribute path.
_STARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "env": (
        ("envs[{env_id}].", "env"),
        ("event:EPOCH_COMPLETED.", "epoch"),
        ("event:EPISODE_OUTCOME.", "outcome"),
    ),
    "head": (("tamiyo.head_{head}_", "head"), ("event:PPO_UPDATE_COMPLETED.head_{head}_", "head")),
    "slot": (("envs[{env_id}].seeds[{slot_id}].", "seed"),),
    "shapley": (("envs[{env_id}].shapley_snapshot.values[{slot_id}].", "estimate"),),
    "best_run": (("best_runs[{place}].", "record"),),
    "observations": (("observation_stats.", "observations"),),
}
_RUN_STARTS = (
    *((f"event:{name}.", row.latest) for name, row in BY_NAME.items() if row.latest is not None),
    ("event:ANALYTICS_SNAPSHOT[kind=batch_stats].", "batch_stats"),
    ("", "snapshot"),
)
_PATH = re.compile(r"[A-Za-z_][\w.]*")


def plain_start(metric: Metric) -> tuple[str, str] | None:
    """Where a metric's first source starts and the attribute path from there; None if derived."""
    source = metric.sources[0]
    if source.startswith("derived:"):
        return None
    for prefix, root in _STARTS.get(metric.block, _RUN_STARTS):
        if source.startswith(prefix):
            path = source[len(prefix) :]
            return (root, path) if _PATH.fullmatch(path) else None
    return None


class Filler:
    """Gathers the values of one row of a block from the objects it describes.

    Compiled once per block: plain sources of one object become a single ``attrgetter``; metrics
    with a ``read`` function are called. Returns the values in the order of ``block.columns``.
    """

    def __init__(self, metrics: tuple[Metric, ...], block_name: str) -> None:
        plain: dict[str, list[tuple[Metric, str]]] = {}
        own: list[Metric] = []
        for metric in metrics:
            start = None if metric.read is not None else plain_start(metric)
            if start is None:
                own.append(metric)
            else:
                plain.setdefault(start[0], []).append((metric, start[1]))
        ordered: list[Metric] = []
        self._parts: list[tuple[str, Callable[[Any], Any], int]] = []
        for root, chosen in plain.items():
            paths = [path for _, path in chosen]
            get = _getter(paths)
            self._parts.append((root, get, len(paths)))
            ordered += [metric for metric, _ in chosen]
        self._own = own
        self.block = Block.of(block_name, (*ordered, *own))
        spans = self.block.spans
        self._scaled = [
            (spans[m.name][0], m.scale)
            for m in self.block.metrics
            if m.scale != 1.0 and not m.reads_base_units
        ]
        self._zero_absent = [spans[m.name][0] for m in self.block.metrics if m.zero_is_absent]

    def values(self, roots: Roots) -> list[float]:
        """One row's values; ``ABSENT`` where nothing was measured."""
        row: list[Any] = []
        for root, get, count in self._parts:
            source = roots[root]
            row += (None,) * count if source is None else get(source)
        for metric in self._own:
            value = metric.read(roots) if metric.read is not None else None
            if metric.states:
                row += _one_hot(metric.states, value)
            else:
                row.append(value)
        for place, scale in self._scaled:
            if row[place] is not None:
                row[place] *= scale
        for place in self._zero_absent:
            if not row[place]:
                row[place] = None
        if None in row:
            return [ABSENT if value is None else value for value in row]
        return row

    def only(self, name: str, roots: Roots) -> list[float]:
        """One row in which nothing but a single metric is present."""
        row = [ABSENT] * len(self.block.columns)
        first, last = self.block.spans[name]
        row[first:last] = self.values(roots)[first:last]
        return row


def _getter(paths: list[str]) -> Callable[[Any], Any]:
    """All paths of one object at once, as a tuple.

    Where they are plain fields of an object that keeps them in its ``__dict__``, getting them from
    there costs half.
    """
    if len(paths) == 1:
        single = attrgetter(paths[0])
        return lambda source: (single(source),)
    get = attrgetter(*paths)
    if any("." in path for path in paths):
        return get
    get_items = itemgetter(*paths)

    def either(source: Any) -> Any:
        if isinstance(source, Struct):
            return get(source)
        try:
            return get_items(source.__dict__)
        except (AttributeError, KeyError):
            return get(source)

    return either


def _one_hot(states: tuple[str, ...], value: Any) -> list[float | None]:
    if value is None:
        return [None] * len(states)
    return [1.0 if state == value else 0.0 for state in states]
