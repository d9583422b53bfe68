"""The blocks of the table, compiled from the catalogue once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from esper_exporter.metrics.catalogue import Catalogue, catalogue
from esper_exporter.metrics.extraction import Filler
from esper_exporter.metrics.families.heads import HEAD_ROWS, OWN_HEAD
from esper_exporter.metrics.sources import check_sources
from esper_exporter.metrics.table import Block

FILLED = ("run", "policy", "observations", "env", "slot", "shapley", "best_run", "device")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Every block by name, and what fills its rows."""

    catalogue: Catalogue
    blocks: tuple[Block, ...]
    fillers: dict[str, Filler]
    head_fillers: dict[str, Filler]


@cache
def compiled() -> Blocks:
    """The blocks of the one catalogue."""
    found = catalogue()
    for metric in found.metrics:
        check_sources(metric, filled=metric.block in (*FILLED, "head"))
    fillers = {name: Filler(found.block(name), name) for name in FILLED}
    head_fillers = {head: Filler(found.block("head"), "head", head) for head in HEAD_ROWS}
    head_fillers[OWN_HEAD] = Filler(found.block("head"), "head", HEAD_ROWS[0], own_head=True)
    ready = {name: filler.block for name, filler in fillers.items()}
    ready["head"] = head_fillers[HEAD_ROWS[0]].block
    names = dict.fromkeys(metric.block for metric in found.metrics)
    blocks = tuple(ready.get(name) or Block.of(name, found.block(name)) for name in names)
    return Blocks(found, blocks, fillers, head_fillers)


# A catalogue that contradicts itself is an error at import, not at the first page.
compiled()
