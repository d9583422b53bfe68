"""Lightning with the callback: right fields, the same weights. `make test-adapters`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from esper_exporter import Exporter
from support.pages import value

MISSING = importlib.util.find_spec("lightning") is None
pytestmark = pytest.mark.skipif(MISSING, reason="not run: pip install lightning")


def fit(callbacks: list[Any], folder: Path, accumulate: int, clip: float | None) -> Any:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

        def training_step(self, batch: Any, _index: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 0.01)

    torch.manual_seed(1)
    module = Module()
    data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        callbacks=callbacks,
    )
    trainer.fit(module, DataLoader(data, batch_size=8))
    return module


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (1, 0.1), (4, 0.1)])
def test_each_optimizer_step_is_an_update(
    accumulate: int, clip: float | None, tmp_path: Path
) -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, run_id="x", watch_process=False)
    from esper_exporter.adapters.lightning import EsperCallback

    callbacks: tuple[list[Any], ...] = ([], [EsperCallback(exporter)])
    plain, watched = (fit(one, tmp_path, accumulate, clip) for one in callbacks)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
    page = exporter.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    assert value(page, "esper_tamiyo_updates_total") == 8 / accumulate
    assert value(page, "esper_tamiyo_policy_loss") > 0
    assert value(page, "esper_tamiyo_value_loss") is None
    assert value(page, "esper_tamiyo_layer_grad_norm", layer="net.0") > 0
    before = value(page, "esper_tamiyo_grad_norm_pre_clip")
    assert before > 0
    if clip is not None:
        assert value(page, "esper_tamiyo_max_grad_norm") == clip
        assert value(page, "esper_tamiyo_grad_norm") == pytest.approx(min(clip, before), rel=1e-4)
