"""Tables: one row a thing, one column a query."""

from __future__ import annotations

from typing import Any

from grafana.generator.look import DIM, Steps, absent
from grafana.generator.model import Json, Override, Panel, Target
from grafana.generator.panels import count_unit


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
        custom={"align": "auto", "filterable": False, "minWidth": 90},
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
