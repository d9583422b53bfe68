"""The examples with a trainer run, and the page has their updates."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest

from support.pages import value

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("name", "library", "argument", "updates"),
    [
        ("watched_loop", "torch", 5, 5),
        ("sb3_ppo", "stable_baselines3", 512, 2),
        ("lightning_fit", "lightning", 3, 3),
        ("trl_grpo", "trl", 2, 2),
    ],
)
def test_an_example_runs(
    name: str, library: str, argument: int, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"not run: pip install {library}")
    for setting, said in (("PORT", "0"), ("LINGER", "0"), ("STATE_DIR", "off")):
        monkeypatch.setenv(f"ESPER_EXPORTER_{setting}", said)
    page = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](argument)
    assert value(page, "esper_tamiyo_updates_total") == updates
    assert value(page, "esper_tamiyo_grad_norm_pre_clip") > 0
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
