"""Loops in CleanRL's style with the probe: each field right, the same weights."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from adapters.third_party.field_table import judge
from adapters.third_party.one_file_ppo import CLIP, HEADS, train
from adapters.third_party.reference import Recorder, expected
from esper_exporter import Exporter
from support.pages import value

MISSING = importlib.util.find_spec("gymnasium") is None
pytestmark = pytest.mark.skipif(MISSING, reason="not run: pip install gymnasium")

NORMALISED = {"advantage_mean": "normalised in each minibatch, which the loop does not hand over"}
NORMALISED |= {"advantage_std": NORMALISED["advantage_mean"]}
CONTINUOUS = {
    "head_entropy_ratio": "a continuous head has no largest entropy",
    "action_diversity": "continuous actions hardly repeat",
    "dominant_action_ratio": "continuous actions hardly repeat",
}


@pytest.mark.parametrize("kind", HEADS)
def test_every_field_is_right_and_the_weights_are_the_same(kind: str) -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, run_id="x", watch_process=False)
    recorder = Recorder()
    with recorder.watching():
        plain: Any = train(kind, None, recorder)
    measured: Any = train(kind, exporter)
    for one, other in zip(plain.parameters(), measured.parameters(), strict=True):
        assert torch.equal(one, other)
    page = exporter.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    heads = HEADS[kind]
    reasons = NORMALISED | (CONTINUOUS if heads["action"] is None else {})
    judge(
        f"{kind}, one file as CleanRL writes it",
        page,
        expected(recorder.last, CLIP, heads),
        reasons,
    )
