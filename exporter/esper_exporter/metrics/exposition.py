"""From the value table to a page: Prometheus text and OpenMetrics.

All numbers of a page are formatted by one call into orjson (shortest round-trip form), split,
and joined with the line starts that the table's rows keep ready. What a scrape costs is therefore
one copy, one format and one join, whatever the number of families.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import orjson
from numpy.typing import NDArray

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import ABSENT_BITS, Row, Values, ValueTable

TEXT = "text"
OPENMETRICS = "openmetrics"
FORMATS = (TEXT, OPENMETRICS)

_ABSENT = np.uint64(ABSENT_BITS)


def _escape_help(text: str, openmetrics: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if openmetrics else text


def header(metric: Metric, exposition: str) -> bytes:
    """The HELP, TYPE and (OpenMetrics) UNIT lines of a family.

    The text format knows neither infos nor units: an info is a gauge there. A counter's family is
    named without ``_total`` in OpenMetrics and with it in the text format.
    """
    if exposition == OPENMETRICS:
        name = metric.family
        lines = [f"# HELP {name} {_escape_help(metric.help, True)}", f"# TYPE {name} {metric.kind}"]
        if metric.unit and name.endswith("_" + metric.unit):
            lines.append(f"# UNIT {name} {metric.unit}")
    else:
        kind = "gauge" if metric.kind == "info" else metric.kind
        lines = [
            f"# HELP {metric.name} {_escape_help(metric.help, False)}",
            f"# TYPE {metric.name} {kind}",
        ]
    return ("\n".join(lines) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Capture:
    """One consistent state of a table: its values, and which rows they belong to."""

    values: Values
    version: int
    rows: dict[str, list[Row]]


def capture(table: ValueTable, previous: Capture | None) -> Capture:
    """Copy the table; the owner holds its lock around this call and around nothing more.

    Row lists are copied only when rows came or went since ``previous``.
    """
    if previous is not None and previous.version == table.version:
        return Capture(table.copy(), previous.version, previous.rows)
    rows = {name: list(rows) for name, rows in table.rows.items()}
    return Capture(table.copy(), table.version, rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """Every possible line of the page in order: which cell it shows and how it starts."""

    version: int
    cells: NDArray[np.intp]
    prefixes: NDArray[np.object_]
    families: NDArray[np.intp]
    metrics: tuple[Metric, ...]


_place = attrgetter("place")


def build_layout(state: Capture, metrics: tuple[Metric, ...]) -> Layout:
    """Order the rows' cells by family, as both formats demand (a family's lines stand together).

    Within it rows are sorted; they do not keep the order in which scrapes first met them.
    """
    ordered = {name: sorted(rows, key=_place) for name, rows in state.rows.items()}
    cells: list[int] = []
    prefixes: list[bytes] = []
    families: list[int] = []
    for number, metric in enumerate(metrics):
        rows = ordered[metric.block]
        if not rows:
            continue
        first, last = rows[0].block.spans[metric.name]
        if last - first == 1:
            cells += [row.start + first for row in rows]
            prefixes += [row.prefixes[first] for row in rows]
        else:
            for row in rows:
                cells += range(row.start + first, row.start + last)
                prefixes += row.prefixes[first:last]
        families += [number] * (len(cells) - len(families))
    starts = np.empty(len(prefixes), dtype=object)
    starts[:] = prefixes
    return Layout(
        state.version, np.array(cells, np.intp), starts, np.array(families, np.intp), metrics
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """The lines that are present: their cells, and a page's pieces with gaps for the numbers."""

    version: int
    absent: NDArray[np.bool_]
    cells: NDArray[np.intp]
    pieces: list[bytes]
    families: int


class Page:
    """Renders one table in one format; keeps the layout between scrapes.

    Used by one renderer at a time (its owner serialises scrapes of a format).
    """

    def __init__(self, metrics: tuple[Metric, ...], exposition: str) -> None:
        if exposition not in FORMATS:
            raise ValueError(f"unknown exposition format {exposition!r}, want one of {FORMATS}")
        self._metrics = metrics
        self._headers = [header(metric, exposition) for metric in metrics]
        self._end = b"\n# EOF\n" if exposition == OPENMETRICS else b"\n"
        self._empty = b"# EOF\n" if exposition == OPENMETRICS else b""
        self._layout: Layout | None = None
        self._selection: Selection | None = None

    def series(self) -> int:
        """Samples on the page rendered last."""
        return 0 if self._selection is None else len(self._selection.cells)

    def render(self, state: Capture) -> bytes:
        """The page for a captured state, UTF-8."""
        layout = self._layout
        if layout is None or layout.version != state.version:
            layout = self._layout = build_layout(state, self._metrics)
        absent = state.values.view(np.uint64) == _ABSENT
        chosen = self._selection
        if (
            chosen is None
            or chosen.version != layout.version
            or not np.array_equal(chosen.absent, absent)
        ):
            chosen = self._selection = self._select(layout, absent)
        if not len(chosen.cells):
            return self._empty
        numbers = state.values[chosen.cells]
        formatted = format_numbers(numbers)
        pieces = chosen.pieces.copy()
        pieces[1::2] = formatted
        pieces.append(self._end)
        return b"".join(pieces)

    def _select(self, layout: Layout, absent: NDArray[np.bool_]) -> Selection:
        present = np.flatnonzero(~absent[layout.cells])
        families = layout.families[present]
        starts = layout.prefixes[present].tolist()
        opens = np.flatnonzero(np.diff(families, prepend=-1)).tolist()
        pieces = [b""] * (2 * len(starts))
        pieces[0::2] = [b"\n" + start for start in starts]
        for line in opens:
            pieces[2 * line] = b"\n" + self._headers[families[line]] + starts[line]
        if pieces:
            pieces[0] = pieces[0][1:]
        return Selection(layout.version, absent, layout.cells[present], pieces, len(opens))


def format_numbers(numbers: Values) -> list[bytes]:
    """Each float64 as its shortest text that reads back the same; NaN, +Inf and -Inf by name."""
    formatted = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    for place in np.flatnonzero(~np.isfinite(numbers)).tolist():
        number = numbers[place]
        formatted[place] = b"NaN" if number != number else b"+Inf" if number > 0 else b"-Inf"
    return formatted
