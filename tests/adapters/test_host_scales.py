"""attach, on a stand-in whose hosts train with a loss scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from torch import nn

from adapters.stand_in import Hub, VectorizedPPOTrainer, installed
from adapters.test_attach import OPTIONS, train
from esper_exporter import attach
from support.pages import value


@pytest.fixture(autouse=True)
def esper() -> Iterator[None]:
    with installed():
        yield


def put_in(trainer: VectorizedPPOTrainer, batch: int) -> None:
    """The second batch begins with a scale so large that the gradients overflow."""
    trainer.loss_scale = 2.0**127 if batch else 2.0**10
    trainer.loss = lambda given, wanted: 4.0 * nn.functional.cross_entropy(given, wanted)


def changes(scales: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(scales) if after != before]


def test_the_hosts_loss_scales_are_measured() -> None:
    trainer, _, page = train(True, batches=2, before=put_in)
    plain, _, _ = train(False, batches=2, before=put_in)
    assert trainer.scales == plain.scales
    moves = [change for scales in trainer.scales.values() for change in changes(scales)]
    falls = sum(move < 0 for move in moves)
    assert falls >= 2 and falls < len(moves)
    assert value(page, "esper_tamiyo_loss_scale_updates_total") == len(moves)
    assert value(page, "esper_tamiyo_amp_overflows_total") == falls
    last = [scales for (batch, _), scales in trainer.scales.items() if batch == 1]
    assert value(page, "esper_tamiyo_loss_scale") == min(scales[-1] for scales in last)
    state = "decaying" if any(changes(scales)[-1] < 0 for scales in last) else "growing"
    assert value(page, "esper_torch_grad_scaler_state", state=state) == 1
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0


def test_an_overflow_is_no_gradient_norm() -> None:
    """The first epoch's first batches overflow: the norm is that of the others."""
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    put_in(trainer, 1)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    pages = []

    def look(event: Any) -> None:
        if event.event_type.name == "EPOCH_COMPLETED":
            pages.append((str(event.data.env_id), exporter.render().decode()))

    hub.backends.append(type("Last", (), {"emit": staticmethod(look)})())
    trainer._run_batch(batch_idx=0)
    exporter.close()
    assert len(pages) == 4
    for env, page in pages:
        norm = value(page, "esper_tolaria_host_grad_norm_pre_clip", env_id=env)
        assert norm is not None and 0 < norm < math.inf


@pytest.mark.parametrize("enabled", [None, False])
def test_without_a_scaler_in_use_nothing_is_reported(enabled: bool | None) -> None:
    def put_in(trainer: VectorizedPPOTrainer, batch: int) -> None:
        trainer.loss_scale = None if enabled is None else 2.0**10
        trainer.scaler_enabled = bool(enabled)

    _, _, page = train(True, batches=1, before=put_in)
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    for name in ("loss_scale", "loss_scale_updates_total", "amp_overflows_total"):
        assert f"\nesper_tamiyo_{name}{{" not in page
    assert "\nesper_torch_grad_scaler_state{" not in page
