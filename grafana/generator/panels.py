"""The kinds of panel in use, with the options that all panels of a kind share."""

from __future__ import annotations

import string
from typing import Any

from grafana.generator.look import DIM, MISSING, NO_DATA, PLAIN, THING_COLORS, Steps, absent
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
            "wideLayout": True,
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
        },
        transformations=(WITHOUT_DEFAULT_GROUP,),
    )


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


def _colors_of_things() -> tuple[Override, ...]:
    characters = string.digits + string.ascii_letters
    found = []
    for number, color in enumerate(THING_COLORS):
        last = "".join(each for each in characters if ord(each) % len(THING_COLORS) == number)
        properties = (("color", {"mode": "fixed", "fixedColor": color}),)
        found.append(Override(f"/[{last}]$/", properties, regex=True))
    return tuple(found)


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


def column(
    title: str,
    expr: str,
    *,
    unit: str = "",
    levels: Steps = (),
    mapping: Json | None = None,
    decimals: int | None = None,
    cell: str = "",
    width: int = 0,
) -> tuple[str, str, tuple[tuple[str, Any], ...]]:
    """One column of a table: its title, its query and how its cells look."""
    properties: list[tuple[str, Any]] = [
        ("mappings", [*([mapping] if mapping else []), *absent(missing="–")])
    ]
    if unit:
        properties.append(("unit", count_unit(unit, decimals)))
    if decimals is not None:
        properties.append(("decimals", decimals))
    if levels:
        steps = [{"value": bound, "color": color} for bound, color in levels]
        properties.append(("thresholds", {"mode": "absolute", "steps": steps}))
        properties.append(("color", {"mode": "thresholds"}))
    kind = cell or ("color-text" if levels or mapping else "")
    if kind == "gauge":
        properties += [("min", 0), ("max", 1)]
        properties.append(("custom.cellOptions", {"type": "gauge", "mode": "basic"}))
    elif kind:
        properties.append(("custom.cellOptions", {"type": kind, "mode": "basic"}))
    if width:
        properties.append(("custom.width", width))
    return title, expr, tuple(properties)


def table(
    title: str,
    keys: dict[str, str],
    columns: tuple[tuple[str, str, tuple[tuple[str, Any], ...]], ...],
    description: str,
    *,
    width: int = 24,
    height: int = 10,
    hidden: tuple[str, ...] = (),
    key_properties: dict[str, tuple[tuple[str, Any], ...]] | None = None,
    sort: tuple[tuple[str, bool], ...] = (),
    order: tuple[str, ...] = (),
    worst_first: str = "",
) -> Panel:
    """A table of instant queries, one row for each set of ``keys`` (label to title).

    Each query is aggregated to the keys, so that the queries' rows fall together. ``order`` puts
    titles in another order than keys first, then columns; ``sort`` is by titles, True for falling.
    ``worst_first`` is the column, shown or hidden, by which the rows come, the highest first.
    """
    refs = [chr(ord("A") + i) for i in range(len(columns))]
    fields = {f"Value #{ref}": name for ref, (name, _, _) in zip(refs, columns, strict=True)}
    if len(columns) == 1:
        fields = {"Value": columns[0][0]}
    renamed = {**keys, **fields}
    titles = [*order, *(t for t in renamed.values() if t not in order)]
    overrides = [Override(name, properties) for name, _, properties in columns]
    overrides += [Override(n, p) for n, p in (key_properties or {}).items()]
    return Panel(
        type="table",
        title=title,
        description=description,
        targets=tuple(Target(expr, "", instant=True, format="table") for _, expr, _ in columns),
        width=width,
        height=height,
        no_value="–",
        color={"mode": "fixed", "fixedColor": DIM},
        custom={"align": "auto", "filterable": False, "minWidth": 60},
        overrides=tuple(overrides),
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "enablePagination": False,
            "sortBy": [{"displayName": name, "desc": falling} for name, falling in sort],
            "footer": {"show": False, "reducer": [], "countRows": False, "fields": ""},
        },
        transformations=(
            {"id": "merge", "options": {}},
            *(
                {
                    "id": "sortBy",
                    "options": {"fields": {}, "sort": [{"field": field, "desc": True}]},
                }
                for field, name in fields.items()
                if name == worst_first
            ),
            {
                "id": "organize",
                "options": {
                    "excludeByName": {
                        "Time": True,
                        **{name: True for name, shown in renamed.items() if shown in hidden},
                    },
                    "includeByName": {},
                    "indexByName": {name: titles.index(title) for name, title in renamed.items()},
                    "renameByName": renamed,
                },
            },
        ),
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
