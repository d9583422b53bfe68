"""Grafana's classic dashboard format (schema version 41: Grafana 11 to 13 load it)."""

from __future__ import annotations

import json
import zlib

from grafana.generator.model import Annotation, Dashboard, Json, Panel, Row, Target, Variable

SCHEMA_VERSION = 41
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def text(dashboard: Dashboard) -> str:
    """The file: keys in a fixed order, so that a change reads as a change."""
    return json.dumps(document(dashboard), indent=1, ensure_ascii=False) + "\n"


def document(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana's file provisioning reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": list(dashboard.tags),
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.time_from, "to": "now"},
        "timezone": "browser",
        "links": [_links()],
        "annotations": {"list": [_annotation(a) for a in dashboard.annotations]},
        "templating": {"list": [_datasource(), *(_variable(v) for v in dashboard.variables)]},
        "panels": _placed(dashboard.rows, {v.name for v in dashboard.variables if not v.all}),
    }


def _links() -> Json:
    """The other dashboards, with the time range and the choices kept."""
    return {
        "type": "dashboards",
        "title": "esper",
        "tags": ["esper"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "expr": annotation.expr,
        "iconColor": annotation.color,
        "titleFormat": annotation.title,
        "textFormat": "",
        "tagKeys": annotation.tags,
        "step": annotation.step,
        "useValueForTime": annotation.value_is_time,
    }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus to ask.",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "current": {},
        "options": [],
    }


def _variable(variable: Variable) -> Json:
    shape: Json = {
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "type": "query",
        "datasource": SOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": f"variable-{variable.name}"},
        "regex": variable.regex,
        "refresh": 2,
        "sort": variable.sort,
        "hide": 0,
        "multi": variable.multi,
        "includeAll": variable.all,
        "current": {},
        "options": [],
    }
    return shape | ({"allValue": ".*"} if variable.all else {})


class Numbers:
    """Ids of one dashboard's panels: from row and title, so that a new panel changes no other."""

    def __init__(self) -> None:
        self._taken: dict[int, tuple[str, str]] = {}

    def of(self, row: str, title: str) -> int:
        """The id, between 1 and 2**31 - 1. Raises ValueError for a title that comes twice."""
        number = zlib.crc32(f"{row}\n{title}".encode()) % (2**31 - 1) + 1
        if number in self._taken:
            raise ValueError(f"{(row, title)} has the id of {self._taken[number]}: rename one")
        self._taken[number] = (row, title)
        return number


def _placed(rows: tuple[Row, ...], names: set[str]) -> list[Json]:
    """All rows with their panels, one below the other; a closed row holds its own panels."""
    found: list[Json] = []
    numbers = Numbers()
    top = 0
    for row in rows:
        head: Json = {
            "id": numbers.of("row", row.title),
            "type": "row",
            "title": row.title,
            "collapsed": row.closed,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        top += 1
        panels, bottom = _flow(row, top, numbers, names)
        if row.closed:
            head["panels"] = panels
            found.append(head)
        else:
            found += [head, *panels]
            top = bottom
    return found


def _flow(row: Row, top: int, numbers: Numbers, names: set[str]) -> tuple[list[Json], int]:
    """Panels from left to right; a line is as high as its highest panel."""
    placed: list[Json] = []
    left, line = 0, 0
    for panel in row.panels:
        if left + panel.width > COLUMNS:
            left, top, line = 0, top + line, 0
        at = {"x": left, "y": top, "w": panel.width, "h": panel.height}
        placed.append(_panel(panel, numbers.of(row.title, panel.title), at, names))
        left += panel.width
        line = max(line, panel.height)
    return placed, top + line


def _panel(panel: Panel, number: int, at: dict[str, int], names: set[str]) -> Json:
    shape: Json = {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "gridPos": at,
    }
    shape["datasource"] = SOURCE
    shape["targets"] = [_target(t, chr(ord("A") + i)) for i, t in enumerate(panel.targets)]
    shape["fieldConfig"] = {"defaults": _defaults(panel), "overrides": _overrides(panel)}
    shape["options"] = panel.options
    if panel.interval:
        shape["interval"] = panel.interval
    if panel.repeat:
        shape |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": 2}
    if panel.points:
        shape["maxDataPoints"] = panel.points
    # What takes the chosen run out of names has no place where no run is chosen.
    kept = [t for t in panel.transformations if "run" in names or "${run}" not in str(t)]
    if kept:
        shape["transformations"] = kept
    return shape


def _target(target: Target, ref: str) -> Json:
    return {
        "refId": ref,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": target.expr,
        "legendFormat": target.legend or "__auto",
        "instant": target.instant,
        "range": not target.instant,
        "format": target.format,
    }


def _defaults(panel: Panel) -> Json:
    given = {
        "unit": panel.unit or None,
        "decimals": panel.decimals,
        "min": panel.minimum,
        "max": panel.maximum,
        "noValue": panel.no_value or None,
        "mappings": list(panel.mappings) or None,
        "custom": panel.custom or None,
        "links": list(panel.links) or None,
    }
    defaults: Json = {name: value for name, value in given.items() if value is not None}
    defaults["color"] = panel.color
    steps = panel.thresholds or ((None, "text"),)
    defaults["thresholds"] = {
        "mode": "absolute",
        "steps": [{"value": value, "color": color} for value, color in steps],
    }
    return defaults


def _overrides(panel: Panel) -> list[Json]:
    return [
        {
            "matcher": {"id": "byRegexp" if o.regex else "byName", "options": o.name},
            "properties": [{"id": name, "value": value} for name, value in o.properties],
        }
        for o in panel.overrides
    ]
