"""What others that watch a torch loop cost the same update: TensorBoard, wandb.watch, Lightning."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Result

TENSORBOARD = "an update with TensorBoard / without"
WANDB = "an update with wandb.watch / without"
LIGHTNING = "an update with Lightning's grad_norm / without"
PAIRS = 1
"""Pairs of updates a round."""

Paired = Callable[..., Result]


def run(make_loop: Callable[[], Any], paired: Paired, rounds: int) -> list[Result]:
    """The update of ``make_loop()`` with each, where it is installed, beside the bare one.

    ``paired`` measures two calls in turn (`benchmarks.probe.paired`).
    """
    found = []
    for name, needed, measure in (
        (TENSORBOARD, "tensorboard", _tensorboard),
        (WANDB, "wandb", _wandb),
        (LIGHTNING, "lightning", _lightning),
    ):
        try:
            importlib.import_module(needed)
        except ImportError:
            found.append(Result(name, 0.0, None, None, "s", note="not installed"))
            continue
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(name, make_loop(), folder, paired, PAIRS * rounds))
    return found


def _tensorboard(name: str, loop: Any, folder: str, paired: Paired, pairs: int) -> Result:
    from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

    writer = SummaryWriter(folder)  # type: ignore[no-untyped-call]
    parameters = list(loop.policy.named_parameters())

    def log(values: dict[str, Any]) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value.detach().mean())
        for key, parameter in parameters:
            writer.add_scalar(key, parameter.grad.norm())

    count = len(parameters) + 10
    try:
        return paired(
            name,
            lambda: loop.update(logged=log),
            loop.update,
            None,
            pairs,
            f"{count} scalars a minibatch: losses, entropies, norms by tensor",
        )
    finally:
        writer.close()


def _wandb(name: str, loop: Any, folder: str, paired: Paired, pairs: int) -> Result:
    wandb = importlib.import_module("wandb")
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=folder, project="bench", settings=settings)

    def log(values: dict[str, Any]) -> None:
        run.log({key: float(value.detach().mean()) for key, value in values.items()})

    def watched() -> None:
        run.watch(loop.policy, log="gradients", log_freq=1)
        try:
            loop.update(logged=log)
        finally:
            run.unwatch(loop.policy)

    try:
        return paired(
            name, watched, loop.update, None, pairs, "offline, log_freq=1, losses and entropies"
        )
    finally:
        run.finish()


def _lightning(name: str, loop: Any, _folder: str, paired: Paired, pairs: int) -> Result:
    from lightning.pytorch.utilities import grad_norm  # type: ignore[import-not-found]

    kept: list[Any] = []

    def log(_values: dict[str, Any]) -> None:
        kept[:] = [{key: float(value) for key, value in grad_norm(loop.policy, 2).items()}]

    return paired(
        name,
        lambda: loop.update(logged=log),
        loop.update,
        None,
        pairs,
        "norms by tensor, read as a logger does; nothing is written",
    )
