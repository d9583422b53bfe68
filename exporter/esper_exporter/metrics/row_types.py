"""The blocks of the table, compiled from the catalogue once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from esper_exporter.metrics.catalogue import Catalogue, catalogue
from esper_exporter.metrics.extraction import Filler
from esper_exporter.metrics.source_checks import check_sources
from esper_exporter.metrics.table import Block

FILLED = ("run", "policy", "head", "observations", "env", "slot", "shapley", "best_run", "device")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Every block by name, and what fills its rows."""

    catalogue: Catalogue
    blocks: tuple[Block, ...]
    fillers: dict[str, Filler]


@cache
def compiled() -> Blocks:
    """The blocks of the one catalogue."""
    found = catalogue()
    for metric in found.metrics:
        check_sources(metric, filled=metric.block in FILLED)
    fillers = {name: Filler(found.block(name), name) for name in FILLED}
    ready = {name: filler.block for name, filler in fillers.items()}
    names = dict.fromkeys(metric.block for metric in found.metrics)
    blocks = tuple(ready.get(name) or Block.of(name, found.block(name)) for name in names)
    return Blocks(found, blocks, fillers)


# A catalogue that contradicts itself is an error at import, not at the first page.
compiled()
