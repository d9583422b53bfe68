"""Tiles: one number of now, grey when missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from grafana.generator.look import DIM, NO_DATA, PLAIN, Steps, absent
from grafana.generator.model import Json, Panel, Target
from grafana.generator.panels import RUN_NAME, WITHOUT_DEFAULT_GROUP, count_unit

COLUMNS = 24
A_LINE = 4
"""Tiles side by side: with more of them a window of 900 pixels cuts their titles."""


def in_lines(tiles: Iterable[Panel], height: int = 3) -> tuple[Panel, ...]:
    """Tiles in lines of four or fewer that fill the width."""
    left = list(tiles)
    lines = -(-len(left) // A_LINE)
    placed: list[Panel] = []
    while left:
        count = -(-len(left) // lines)
        placed += [replace(each, width=COLUMNS // count, height=height) for each in left[:count]]
        left, lines = left[count:], lines - 1
    return tuple(placed)


def vital(
    title: str,
    expr: str,
    description: str,
    *,
    unit: str,
    levels: Steps = PLAIN,
    mapping: Json | None = None,
    decimals: int | None = None,
    width: int = 3,
    height: int = 4,
    nan: str = "NaN",
    legend: str = RUN_NAME,
) -> Panel:
    """A number of now, one tile a run: instant, grey when missing, coloured by ``levels``."""
    return Panel(
        type="stat",
        title=title,
        description=description,
        targets=(Target(expr, legend, instant=True),),
        width=width,
        height=height,
        unit=count_unit(unit, decimals),
        decimals=decimals,
        no_value=NO_DATA,
        color={"mode": "thresholds"}
        if levels is not PLAIN
        else {"mode": "fixed", "fixedColor": DIM},
        mappings=(*((mapping,) if mapping else ()), *absent(nan)),
        thresholds=levels,
        options={
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
            "colorMode": "value" if levels is PLAIN and not mapping else "background_solid",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            # Names of several runs stay readable beside their numbers.
            "text": {"titleSize": 13},
            "wideLayout": True,
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
        },
        transformations=(WITHOUT_DEFAULT_GROUP,),
    )


def tile(
    title: str,
    expr: str,
    description: str,
    unit: str = "short",
    levels: Steps = PLAIN,
    decimals: int = 0,
    mapping: Json | None = None,
) -> Panel:
    """One number, under its own title."""
    return vital(
        title,
        expr,
        description,
        unit=unit,
        levels=levels,
        decimals=decimals,
        mapping=mapping,
        legend=title,
    )
