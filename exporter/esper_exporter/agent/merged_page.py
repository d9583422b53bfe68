"""Merge many pages into one: families merged and ordered, one call that formats all numbers.

The order of the lines depends only on which rows there are, and is kept; what a scrape costs is
one copy of the values, one format and one join, as on a single page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esper_exporter.agent.layout_log import Family
from esper_exporter.agent.page_view import Lines, RunKey
from esper_exporter.metrics.exposition import OPENMETRICS, format_numbers, header
from esper_exporter.metrics.table import ABSENT_BITS, Values

_ABSENT = np.uint64(ABSENT_BITS)


@dataclass(frozen=True, slots=True)
class Part:
    """One page's share of a merged page.

    ``values`` are its cells, ``families`` what its lines' family numbers mean; ``hidden`` (bool,
    one for each line) leaves lines out, None for none.
    """

    lines: Lines
    families: tuple[Family, ...]
    values: Values
    hidden: NDArray[np.bool_] | None = None


Wanted = Callable[[RunKey], bool]
"""Whether the request selects a run's lines."""


class FamilyOrder:
    """Every family that any page has, in one order: that of the first page, then what others add.

    A family that two versions declare with different types keeps the first one's; the other
    version's lines of it are left out, because a page declares a family once.
    """

    def __init__(self) -> None:
        self.families: list[Family] = []
        self._numbers: dict[str, int] = {}
        self._mapped: dict[int, tuple[tuple[Family, ...], NDArray[np.int64]]] = {}
        self.conflicts = 0

    def mapping(self, families: tuple[Family, ...]) -> NDArray[np.int64]:
        """A page's family numbers → numbers of this order, -1 for what must be left out."""
        known = self._mapped.get(id(families))
        if known is not None and known[0] is families:
            return known[1]
        numbers = []
        for family in families:
            number = self._numbers.setdefault(family.name, len(self.families))
            if number == len(self.families):
                self.families.append(family)
            elif self.families[number].kind != family.kind:
                self.conflicts += 1
                number = -1
            numbers.append(number)
        mapped = np.array(numbers, np.int64)
        if len(self._mapped) > 64:
            self._mapped.clear()
        self._mapped[id(families)] = families, mapped
        return mapped


@dataclass(frozen=True, slots=True)
class _Plan:
    """All lines of the merged page in order."""

    key: tuple[object, ...]
    cells: NDArray[np.int64]
    families: NDArray[np.int64]
    starts: NDArray[np.object_]
    order: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Template:
    """The lines that are present: their cells, and a page's pieces with gaps for the numbers."""

    plan: _Plan
    present: NDArray[np.bool_]
    cells: NDArray[np.int64]
    pieces: list[bytes]


class MergedPage:
    """Renders parts as one page in one format. Used by one renderer at a time."""

    def __init__(self, order: FamilyOrder, exposition: str) -> None:
        self._order = order
        self._exposition = exposition
        self._headers: list[bytes] = []
        self._plan: _Plan | None = None
        self._template: _Template | None = None
        self._end = b"\n# EOF\n" if exposition == OPENMETRICS else b"\n"
        self._empty = b"# EOF\n" if exposition == OPENMETRICS else b""

    def render(self, parts: Sequence[Part], wanted: Wanted | None = None) -> bytes:
        """The page in UTF-8; with ``wanted`` only those runs' lines."""
        parts = [part for part in parts if len(part.lines.cells)]
        if not parts:
            return self._empty
        plan = self._planned(parts)
        values = np.concatenate([part.values for part in parts])
        present = values.view(np.uint64)[plan.cells] != _ABSENT
        for mask in self._masks(parts, wanted, plan.order):
            present &= mask
        template = self._template
        if (
            template is None
            or template.plan is not plan
            or not np.array_equal(template.present, present)
        ):
            template = self._template = self._select(plan, present)
        if not len(template.cells):
            return self._empty
        pieces = template.pieces.copy()
        pieces[1::2] = format_numbers(values[template.cells])
        pieces.append(self._end)
        return b"".join(pieces)

    def _select(self, plan: _Plan, present: NDArray[np.bool_]) -> _Template:
        chosen = np.flatnonzero(present)
        families = plan.families[chosen]
        pieces: list[bytes] = [b""] * (2 * len(chosen))
        pieces[0::2] = plan.starts[chosen].tolist()
        headers = self._all_headers()
        for line in np.flatnonzero(np.diff(families, prepend=-1)).tolist():
            pieces[2 * line] = headers[families[line]] + pieces[2 * line]
        if pieces:
            pieces[0] = pieces[0][1:]
        return _Template(plan, present, plan.cells[chosen], pieces)

    def _planned(self, parts: Sequence[Part]) -> _Plan:
        key = tuple((id(part.lines), len(part.values)) for part in parts)
        plan = self._plan
        # The lines are held by the plan's arrays' owner, so that an id is not used again.
        if plan is not None and plan.key[0] == key:
            return plan
        offsets = np.cumsum([0, *(len(part.values) for part in parts)])
        cells = np.concatenate(
            [part.lines.cells + offset for part, offset in zip(parts, offsets, strict=False)]
        )
        families = np.concatenate(
            [self._order.mapping(part.families)[part.lines.families] for part in parts]
        )
        starts = np.concatenate([part.lines.starts for part in parts])
        order = np.argsort(families, kind="stable")
        order = order[np.searchsorted(families[order], 0) :]
        held = tuple(part.lines for part in parts)
        self._plan = _Plan((key, held), cells[order], families[order], starts[order], order)
        return self._plan

    def _masks(
        self, parts: Sequence[Part], wanted: Wanted | None, order: NDArray[np.int64]
    ) -> list[NDArray[np.bool_]]:
        masks = []
        if any(part.hidden is not None for part in parts):
            hidden = [
                np.zeros(len(part.lines.cells), np.bool_) if part.hidden is None else part.hidden
                for part in parts
            ]
            masks.append(~np.concatenate(hidden)[order])
        if wanted is not None:
            shown = []
            for part in parts:
                of_run = np.array([*(wanted(run) for run in part.lines.runs)], np.bool_)
                shown.append(of_run[part.lines.sources])
            masks.append(np.concatenate(shown)[order])
        return masks

    def _all_headers(self) -> list[bytes]:
        families = self._order.families
        for family in families[len(self._headers) :]:
            lines = header(family.as_metric(), self._exposition)
            self._headers.append(b"\n" + lines.removesuffix(b"\n"))
        return self._headers
