"""What numpy measures on the CPU, torch measures on a device: the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esper_exporter.probes.torch import minibatch, minibatch_on_cpu, rollout, rollout_on_cpu
from probes.loop import HEADS

NAN, INF = float("nan"), float("inf")
STEPS = 50


def same(found: Any, expected: Tensor) -> None:
    assert np.array(found) == pytest.approx(
        expected.double().numpy(), rel=1e-9, abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("spoilt", [None, NAN, INF, -INF, -60.0])
@pytest.mark.parametrize("valid", ["all", "some", "none"])
@pytest.mark.parametrize("masks", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("old", ["all", "some", "none"])
def test_a_minibatch(spoilt: float | None, valid: str, masks: tuple[bool, bool], old: str) -> None:
    draw = torch.Generator().manual_seed(3)
    heads = tuple(HEADS)
    with_old = {"all": heads, "some": heads[1:3], "none": ()}[old]
    given = minibatch.Given(heads, with_old, heads[::-2][::-1], *masks, valid != "all")
    rows = len(heads) + len(given.with_old) + len(given.with_entropy)
    values = torch.randn(rows, STEPS, generator=draw) * 0.3 - 1.5
    if spoilt is not None:
        values[1, 7] = spoilt
    masked = torch.rand(sum(masks) * len(heads), STEPS, generator=draw) < 0.7
    seen = torch.arange(STEPS) < (40 if valid == "some" else 0)
    flags = torch.cat([masked, seen[None]]) if given.valid else masked if any(masks) else None

    expected = minibatch.measure(minibatch.steps_of(given, values, flags), 0.2)
    on_cpu = None if flags is None else flags.numpy()
    same(minibatch_on_cpu.measure(given, values.numpy(), on_cpu, 0.2), expected)


@pytest.mark.parametrize("spoilt", [None, NAN, INF, -INF])
@pytest.mark.parametrize("valid", [None, 40, 1, 0])
@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_a_rollout(spoilt: float | None, valid: int | None, steps: int) -> None:
    draw = torch.Generator().manual_seed(steps)
    given = {name: torch.randn(steps, generator=draw) for name in ("values", "returns", "more")}
    if spoilt is not None:
        given["returns"][0] = spoilt
    actions = {head: torch.randint(0, n, (steps,), generator=draw) for head, n in HEADS.items()}
    seen = None if valid is None else torch.arange(steps) < valid
    found = dict(rollout_on_cpu.vectors(given, actions, HEADS, seen))
    expected = dict(rollout.vectors(given, actions, HEADS, seen))
    assert found.keys() == expected.keys()
    # Of nothing there are no quantiles, and none are reported; a device sorts NaN behind padding.
    if valid == 0 or (valid is not None and spoilt != spoilt):
        del expected["quantiles"]
    for kind, vector in expected.items():
        same(found[kind], vector)


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_finite_warn_nobody() -> None:
    broken = torch.tensor([NAN, INF, -INF, 1e38, 1e38, -1e38])
    given = {"values": broken, "returns": broken.flip(0)}
    assert dict(rollout_on_cpu.vectors(given, {}, {}, None))
    layout = minibatch.Given(("op",), ("op",), ("op",), False, False, False)
    rows = torch.stack([broken, broken.flip(0), broken]).numpy()
    assert len(minibatch_on_cpu.measure(layout, rows, None, 0.2))
