"""The views that the real esper-lite has as well: the same rows, column by column.

Run where ESPER_LITE_SRC is a checkout of it (the folder with the package ``esper``).
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from esper_exporter.demo.bundled import recording
from esper_exporter.sql import connect

SRC = os.environ.get("ESPER_LITE_SRC")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not SRC, reason="not run: ESPER_LITE_SRC names no checkout of esper-lite"),
]
VIEWS = (
    *("raw_events", "runs", "epochs", "ppo_updates", "batch_epochs", "trends", "seed_lifecycle"),
    *("morphology_causal_log", "topology_manifests", "decisions", "action_distribution"),
    *("rewards", "batch_stats", "phase_occupancy", "shapley_computed", "anomalies"),
    *("run_confounders", "episode_outcomes", "reward_calibration"),
)
UNLIKE = {"filename"}
"""A path: the copy that the real views read lies elsewhere."""
KEYS = {
    "phase_occupancy": "event_id, phase_name",
    "action_distribution": "event_id, action_name",
    "reward_calibration": "run_dir, group_id",
}
"""View → what orders its rows; the event's id where nothing is said."""


@cache
def real_views() -> ModuleType:
    """The module with the real views alone: the package around it needs the whole trainer."""
    assert SRC is not None
    [path] = (p for p in Path(SRC).glob("**/esper/karn/mcp/views.py") if "archive" not in p.parts)
    spec = importlib.util.spec_from_file_location("real_views", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_views"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["run1", "run2b"])
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Connections to the real views and to ours, over the same telemetry."""
    import duckdb

    folder = tmp_path_factory.mktemp("runs") / "seed 1"
    folder.mkdir()
    with recording(request.param) as path:
        (folder / "events.jsonl").write_bytes(gzip.decompress(path.read_bytes()))
    real = duckdb.connect()
    real.execute("SET TimeZone = 'UTC'").fetchall()
    real_views().create_views(real, str(folder.parent))
    return real, connect(folder.parent)


def plain(value: Any) -> Any:
    """A value as both sides spell it: JSON read, absent fields left out, numbers that stand as
    text as numbers."""
    if isinstance(value, str):
        try:
            reported = json.loads(value)
        except ValueError:
            return value
        return value if reported is None else plain(reported)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else round(value, 12)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if each is not None}
    return value


def test_every_real_view_is_compared() -> None:
    assert set(VIEWS) == set(real_views().VIEW_DEFINITIONS)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_rows_of_the_real_one(view: str, both: tuple[Any, Any]) -> None:
    real, ours = both
    columns = [row[0] for row in real.execute(f"DESCRIBE {view}").fetchall()]
    assert set(columns) <= {row[0] for row in ours.execute(f"DESCRIBE {view}").fetchall()}
    wanted = [name for name in columns if name not in UNLIKE]
    names = ", ".join(f'"{name}"' for name in wanted)
    query = f"SELECT {names} FROM {view} ORDER BY {KEYS.get(view, 'event_id')}"
    expected, found = (connection.execute(query).fetchall() for connection in (real, ours))
    assert len(found) == len(expected)
    for real_row, row in zip(expected, found, strict=True):
        for name, real_value, value in zip(wanted, real_row, row, strict=True):
            assert plain(value) == plain(real_value), name
