"""The committed dashboards and their contents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}

METRIC = re.compile(r"\b((?:esper|process|python_gc)_\w+)(\{([^{}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|on|group_left)\s*\(([^()]*)\)")


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but rows, those of closed rows included."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def expressions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The place of a query, and the query: panels, variables and annotations."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in variables(board):
        yield f"${variable['name']}", variable["query"]["query"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def variables(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables that are found by a query."""
    return [v for v in board["templating"]["list"] if v["type"] == "query"]
