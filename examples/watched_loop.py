"""A supervised loop in torch, watched: gradients, weights, NaN and Inf; four lines of it are new.

usage: watched_loop.py [STEPS]
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from esper_exporter import Exporter
from esper_exporter.adapters.watch import watch


def main(steps: int = 200) -> str:
    """Train; the page as it was at the end."""
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Exporter(run_id="watched") as exporter:
        watching = watch(model, optimizer, exporter)
        for _ in range(steps):
            seen = torch.randn(64, 8)
            loss = nn.functional.cross_entropy(model(seen), seen[:, :3].argmax(1))
            watching.loss(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        watching.close()
        return exporter.render().decode()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
