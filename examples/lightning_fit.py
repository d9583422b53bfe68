"""PyTorch Lightning with the callback: `pip install '.[lightning]'` from the checkout.

usage: lightning_fit.py [BATCHES]
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from esper_exporter.adapters.lightning import EsperCallback


class Classifier(pl.LightningModule):
    """A small network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

    def training_step(self, batch: Any, _index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def main(batches: int = 200) -> str:
    """Train; the page as it was at the end."""
    seen = torch.randn(64 * batches, 8)
    data = DataLoader(TensorDataset(seen, seen[:, :3].argmax(1)), batch_size=64)
    measured = EsperCallback(run_id="classifier")
    with tempfile.TemporaryDirectory() as folder:
        pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, default_root_dir=folder,
            enable_checkpointing=False, enable_progress_bar=False, callbacks=[measured],
        ).fit(Classifier(), data)  # fmt: skip
    return measured.exporter.render().decode()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
