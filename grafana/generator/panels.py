"""The kinds of panel in use, with the options that all panels of a kind share."""

from __future__ import annotations

import string
from typing import Any

from grafana.generator.look import MISSING, NO_DATA, PLAIN, THING_COLORS, Steps, absent
from grafana.generator.model import Json, Override, Panel, Target

RUN_NAME = "{{run_id}}/{{group_id}}"

WITHOUT_DEFAULT_GROUP: Json = {
    "id": "renameByRegex",
    "options": {"regex": "^(.*)/default$", "renamePattern": "$1"},
}
"""A group is worth naming where there are several; the only one is called default."""

WITHOUT_THE_RUN: tuple[Json, ...] = tuple(
    {"id": "renameByRegex", "options": {"regex": regex, "renamePattern": pattern}}
    for regex, pattern in (("^(.+) ${run}$", "$1"), ("^(.+ )${run}/(.+)$", "$1$2"))
)
"""The run is named in each legend only where several are chosen, which match no name."""

EVENT_INTERVAL = "1m"
"""At least four scrapes between two bars that count events."""


def count_unit(unit: str, decimals: int | None) -> str:
    """Counts in full: Grafana's ``short`` would show 1093 as 1 K."""
    return "none" if unit == "short" and decimals == 0 else unit


def series(
    title: str,
    targets: tuple[Target, ...] | Target,
    description: str,
    *,
    unit: str,
    bounds: Steps = (),
    stack: str = "none",
    fill: int = 0,
    log: bool = False,
    bars: bool = False,
    width: int = 8,
    height: int = 8,
    minimum: float | None = None,
    maximum: float | None = None,
    soft_maximum: float | None = None,
    decimals: int | None = None,
    colors: dict[str, str] | None = None,
    overrides: tuple[Override, ...] = (),
    step: bool = False,
    shorten: Json | None = None,
    repeat: str = "",
    things: bool = False,
    links: tuple[Json, ...] = (),
) -> Panel:
    """Lines over time. ``bounds`` are drawn dashed; gaps stay gaps, for absent is not 0.

    ``shorten`` is the transformation that takes out of the names what says nothing; ``things``
    colours lines that are runs or environments.
    """
    custom: dict[str, Any] = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "stepAfter" if step else "linear",
        "lineWidth": 1,
        "fillOpacity": 60 if stack != "none" and not fill else fill,
        "showPoints": "auto" if stack == "none" else "never",
        "pointSize": 4,
        "spanNulls": False,
        "stacking": {"mode": stack, "group": "A"},
        "axisPlacement": "auto",
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if bounds else "off"},
    }
    if minimum is None and not log:
        custom["axisSoftMin"] = 0
    if soft_maximum is not None:
        custom["axisSoftMax"] = soft_maximum
    by_name = tuple(
        Override(
            f"/^{name}( |$)/", (("color", {"mode": "fixed", "fixedColor": color}),), regex=True
        )
        for name, color in (colors or {}).items()
    )
    if things:
        by_name = (*by_name, *_colors_of_things())
    if shorten is None:
        shortened: tuple[Json, ...] = (WITHOUT_DEFAULT_GROUP, *WITHOUT_THE_RUN)
    else:
        shortened = (shorten,)
    return Panel(
        type="timeseries",
        title=title,
        description=description,
        targets=targets if isinstance(targets, tuple) else (targets,),
        # Repeated panels share a line of their own.
        width=24 if repeat else width,
        height=height,
        unit=unit,
        decimals=decimals,
        minimum=minimum,
        maximum=maximum,
        thresholds=bounds,
        custom=custom,
        overrides=(*by_name, *overrides),
        options={
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        transformations=shortened,
        interval=EVENT_INTERVAL if bars else "",
        repeat=repeat,
        links=links,
    )


BITS = 4
"""Of the number that stands for a name's colour."""


def _colors_of_things() -> tuple[Override, ...]:
    """By all characters of the name, so that neither what names begin with nor what they end in
    makes them one: each character stands for the low half of its code, which tells the ten digits
    apart, and a name for the exclusive or of its characters, a number below 16."""
    half = {
        (bit, odd): f"(?={_has_bit(bit, odd)}$)" for bit in range(BITS) for odd in (False, True)
    }
    return tuple(
        Override(
            "/^" + "".join(half[bit, bool(number >> bit & 1)] for bit in range(BITS)) + "/",
            (("color", {"mode": "fixed", "fixedColor": color}),),
            regex=True,
        )
        for number, color in enumerate(THING_COLORS)
    )


def _has_bit(bit: int, odd: bool) -> str:
    """A pattern of names of which an odd or an even number of characters has a bit."""
    characters = string.digits + string.ascii_letters
    having = "".join(each for each in characters if ord(each) >> bit & 1)
    one = f"[^{having}]*[{having}]"
    return f"(?:{one}{one})*" + (one if odd else "") + f"[^{having}]*"


def timeline(
    title: str,
    expr: str,
    legend: str,
    description: str,
    mapping: Json,
    *,
    width: int = 24,
    height: int = 8,
    shorten: Json | None = None,
) -> Panel:
    """States over time, one line a thing. Where nothing was measured there is nothing.

    Of at most 300 points: a state's number is put together of as many series as there are states.
    """
    return Panel(
        type="state-timeline",
        title=title,
        description=description,
        targets=(Target(expr, legend),),
        width=width,
        height=height,
        color={"mode": "fixed", "fixedColor": MISSING},
        mappings=(mapping,),
        custom={"fillOpacity": 85, "lineWidth": 0, "spanNulls": False, "insertNulls": False},
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        transformations=(shorten,) if shorten else (WITHOUT_DEFAULT_GROUP, *WITHOUT_THE_RUN),
        points=300,
    )


def heatmap(
    title: str, expr: str, description: str, *, unit: str, width: int = 8, height: int = 8
) -> Panel:
    """A histogram's buckets over time; ``expr`` sums increases by ``le``."""
    return Panel(
        type="heatmap",
        interval=EVENT_INTERVAL,
        title=title,
        description=description,
        targets=(Target(expr, "{{le}}", format="heatmap"),),
        width=width,
        height=height,
        unit="short",
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Viridis", "steps": 64, "reverse": False},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
        },
    )


def ranking(
    title: str,
    expr: str,
    legend: str,
    description: str,
    *,
    unit: str,
    levels: Steps = PLAIN,
    width: int = 8,
    height: int = 8,
    decimals: int | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    colors: dict[str, str] | None = None,
) -> Panel:
    """Bars of now, the largest first where the query sorts."""
    by_name = tuple(
        Override(
            f"/^{name}( |$)/", (("color", {"mode": "fixed", "fixedColor": color}),), regex=True
        )
        for name, color in (colors or {}).items()
    )
    return Panel(
        type="bargauge",
        title=title,
        description=description,
        targets=(Target(expr, legend, instant=True),),
        width=width,
        height=height,
        unit=count_unit(unit, decimals),
        decimals=decimals,
        minimum=0.0 if minimum is None else minimum,
        maximum=maximum,
        no_value=NO_DATA,
        color={"mode": "palette-classic" if levels is PLAIN else "thresholds"},
        mappings=absent(),
        thresholds=levels,
        overrides=by_name,
        options={
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "namePlacement": "left",
            "sizing": "auto",
            "minVizHeight": 12,
            "maxVizHeight": 40,
            "text": {"titleSize": 12, "valueSize": 14},
            "legend": {"showLegend": False},
        },
        transformations=(WITHOUT_DEFAULT_GROUP, *WITHOUT_THE_RUN),
    )
