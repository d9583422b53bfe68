"""What a dashboard is made of, as plain data; ``classic_json`` turns it into Grafana's format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PanelType = Literal["bargauge", "heatmap", "stat", "state-timeline", "table", "timeseries"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One query. ``instant`` asks for the last moment of the time range only."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: Literal["time_series", "table", "heatmap"] = "time_series"


@dataclass(frozen=True, slots=True)
class Override:
    """Properties (id, value) of the fields whose name equals, or matches as a regex."""

    name: str
    properties: tuple[tuple[str, Any], ...]
    regex: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; ``width`` of 24 columns, ``height`` in units of 30 pixels.

    ``description`` says what is good and what to do when it is not. ``mappings``, ``thresholds``
    and ``custom`` are as Grafana's field configuration has them. ``points`` is how many a query
    over time asks for at most; without it one for each pixel. ``interval`` is the shortest time
    between two points, ``repeat`` the variable of whose values each has a panel; ``links`` are
    those of every value.
    """

    type: PanelType
    title: str
    description: str
    targets: tuple[Target, ...] = ()
    width: int = 8
    height: int = 8
    unit: str = ""
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    no_value: str = ""
    color: Json = field(default_factory=lambda: {"mode": "palette-classic"})
    mappings: tuple[Json, ...] = ()
    thresholds: tuple[tuple[float | None, str], ...] = ()
    custom: Json = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    options: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()
    points: int | None = None
    interval: str = ""
    repeat: str = ""
    links: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels that flow from left to right. A closed one costs no query."""

    title: str
    panels: tuple[Panel, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice above the dashboard, from a query.

    With ``all`` there is the entry All, which stands for any value and for none. Without it
    the first entry of the query is the choice one begins with.
    """

    name: str
    label: str
    query: str
    description: str
    regex: str = ""
    all: bool = True
    multi: bool = True
    sort: int = 1


@dataclass(frozen=True, slots=True)
class Annotation:
    """Marks on every time series: where the query has samples, or at the times that it gives."""

    name: str
    expr: str
    title: str
    color: str
    tags: str = ""
    value_is_time: bool = False
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A dashboard; a panel's id comes from its row's title and its own."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]
    annotations: tuple[Annotation, ...]
    time_from: str = "now-1h"
    tags: tuple[str, ...] = ("esper",)
