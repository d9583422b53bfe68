"""watch: a supervised loop, its gradients and weights, in two lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from esper_exporter import Exporter
from esper_exporter.adapters.watch import watch
from support.pages import value

STEPS = 6


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    yield Exporter(port=0, state_dir="off", linger=0, run_id="night-7", watch_process=False)


def train(exporter: Exporter | None, clip: float | None = None, fault: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    watching = watch(model, optimizer, exporter, max_grad_norm=clip) if exporter else None
    draw = torch.Generator().manual_seed(2)
    for number in range(STEPS):
        inputs = torch.randn(16, 4, generator=draw)
        loss = nn.functional.cross_entropy(model(inputs), inputs[:, 0].long().clamp(0, 2))
        if watching is not None:
            watching.loss(loss)
        optimizer.zero_grad()
        loss.backward()
        if fault and number == 3:
            assert model[2].weight.grad is not None
            model[2].weight.grad[0, 0] = fault
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    if watching is not None:
        watching.close()
    return model


@pytest.mark.parametrize("clip", [None, 0.1])
def test_each_step_is_an_update_and_the_weights_are_the_same(
    exporter: Exporter, clip: float | None
) -> None:
    plain, watched = train(None, clip), train(exporter, clip)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
    page = exporter.render().decode()
    assert value(page, "esper_tamiyo_updates_total") == STEPS
    assert value(page, "esper_tamiyo_policy_loss") > 0
    assert value(page, "esper_tamiyo_value_loss") is None
    assert value(page, "esper_tamiyo_learning_rate") == 0.01
    assert value(page, "esper_tamiyo_layer_grad_norm", layer="0") > 0
    after = value(page, "esper_tamiyo_grad_norm")
    assert after == value(page, "esper_tamiyo_grad_norm_pre_clip") or after == pytest.approx(
        0.1, rel=1e-4
    )
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0


def test_a_gradient_that_is_not_finite_names_its_layer(exporter: Exporter) -> None:
    train(exporter, fault=float("inf"))
    page = exporter.render().decode()
    where = {"layer": "2", "source": "gradients", "kind": "inf"}
    assert value(page, "esper_tamiyo_layer_nonfinite_latched", **where) == 1
    assert value(page, "esper_tamiyo_layer_nonfinite_first_update", **where) == 4
    weights = {"layer": "2", "source": "weights", "kind": "nan"}
    assert value(page, "esper_tamiyo_layer_nonfinite_latched", **weights) == 1


def test_what_makes_no_sense_is_refused(exporter: Exporter) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        watch(model, torch.optim.SGD(model.parameters(), 0.1), exporter, steps=0)
