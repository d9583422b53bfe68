"""Queries of the dashboards as Grafana would send them."""

from __future__ import annotations

import re
from typing import Any

from dashboards.boards import BOARDS, panels
from support.prometheus import Prometheus

Found = dict[tuple[tuple[str, str], ...], float]


def resolved(expression: str, **chosen: str) -> str:
    """The query with its variables filled in: All but for what is chosen."""
    windows = {"__range": "1h", "__rate_interval": "1m", "__interval": "1m", **chosen}
    return re.sub(r"\$\{?(\w+)\}?", lambda name: windows.get(name[1], ".*"), expression)


def query_of(uid: str, title: str, target: int = 0) -> str:
    """A panel's query."""
    (panel,) = (panel for panel in panels(BOARDS[uid]) if panel["title"] == title)
    found: str = panel["targets"][target]["expr"]
    return found


def column_of(uid: str, title: str, column: str) -> str:
    """The query behind a table's column."""
    (panel,) = (panel for panel in panels(BOARDS[uid]) if panel["title"] == title)
    (organize,) = (t for t in panel["transformations"] if t["id"] == "organize")
    (field,) = (f for f, name in organize["options"]["renameByName"].items() if name == column)
    ref = field.removeprefix("Value #")
    (found,) = (target["expr"] for target in panel["targets"] if target["refId"] == ref)
    return str(found)


def ask(server: Prometheus, expression: str, moment: float, label: str = "", **chosen: str) -> Any:
    """The only value of a query at a moment, or, with ``label``, the values by that label."""
    answer = server.api("query", query=resolved(expression, **chosen), time=f"{moment:.3f}")
    found = {s["metric"].get(label, ""): float(s["value"][1]) for s in answer["result"]}
    assert len(found) == len(answer["result"]), f"several series for one {label}"
    if label:
        return found
    (value,) = found.values()
    return value
