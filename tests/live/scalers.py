"""Loss scalers put into the real trainer's hosts, which has some on CUDA with float16 only."""

from __future__ import annotations

from typing import Any

import torch


class Scalers:
    """Gives each environment a scaler, and keeps the scales that it went through."""

    def __init__(self, init_scale: float) -> None:
        self._init_scale = init_scale
        self._batch = -1
        self.found: dict[int, list[list[float]]] = {}
        """By batch, from 0, and environment: the scale at first, and after each batch of data."""

    def put_in(self) -> None:
        """Before anything watches the trainer."""
        from esper.simic.training.vectorized_trainer import VectorizedPPOTrainer as Trainer

        scalers, run_batch, train_pass = self, Trainer._run_batch, Trainer._run_train_pass
        updated = torch.amp.GradScaler.update
        sequences: dict[int, list[float]] = {}

        def _run_batch(trainer: Any, *args: Any, **more: Any) -> Any:
            scalers._batch = more["batch_idx"]
            return run_batch(trainer, *args, **more)

        def _run_train_pass(trainer: Any, *args: Any, **more: Any) -> Any:
            for env_state in more["env_states"]:
                if env_state.scaler is None:
                    env_state.scaler = torch.amp.GradScaler(
                        "cpu", scalers._init_scale, growth_interval=5
                    )
                    sequence = sequences[id(env_state.scaler)] = [scalers._init_scale]
                    scalers.found.setdefault(scalers._batch, []).append(sequence)
            return train_pass(trainer, *args, **more)

        def update(scaler: Any, *args: Any, **more: Any) -> None:
            updated(scaler, *args, **more)
            sequences[id(scaler)].append(scaler.get_scale())

        Trainer._run_batch = _run_batch
        Trainer._run_train_pass = _run_train_pass
        torch.amp.GradScaler.update = update  # type: ignore[method-assign]
