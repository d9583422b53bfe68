"""PyTorch Lightning: a callback that measures every optimizer step of a module."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback  # type: ignore[import-not-found]
from torch import Tensor

from esper_exporter.adapters.watch import HEADS
from esper_exporter.exporter import Exporter
from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate


class EsperCallback(Callback):  # type: ignore[misc]
    """Measures a module's training: ``Trainer(callbacks=[EsperCallback()])``.

    ``exporter`` is the one to report to; without one the callback makes an `Exporter` with
    ``settings`` and closes it at the end of training. An update lasts from one optimizer step to
    the next: with accumulated gradients, several batches.
    """

    def __init__(self, exporter: Exporter | None = None, *, every: int = 10, **settings: Any):
        self._own = exporter is None
        self._settings = settings
        self.exporter = exporter
        self._every = every
        self._probe: PolicyProbe | None = None
        self._update: PolicyUpdate | None = None
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The optimizers exist from here on."""
        if self.exporter is None:
            self.exporter = Exporter(**self._settings)
            self.exporter.start()
        self._probe = PolicyProbe(
            pl_module,
            self.exporter,
            heads=HEADS,
            optimizer=trainer.optimizers[0] if trainer.optimizers else None,
            max_grad_norm=trainer.gradient_clip_val or None,
            every=self._every,
        )
        self._probe.training_started(task=type(pl_module).__name__)
        self._step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """An update begins with the first batch after an optimizer step."""
        if self._probe is not None and self._update is None:
            self._update = self._probe.update().begin()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """And ends with the batch that made the optimizer step."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self._update is None:
            return
        if isinstance(loss, Tensor):
            # Lightning has divided it by the number of batches that are accumulated.
            loss = loss.detach() * trainer.accumulate_grad_batches
            self._update.minibatch(policy_loss=loss)
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._update.end()
            self._update = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Report the measurements so far, as an update that was not completed."""
        if self._probe is not None and self._update is not None:
            self._probe.end(self._update, exception)
            self._update = None
        self._end()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Report what is still being copied."""
        self._end()

    def _end(self) -> None:
        if self._probe is not None:
            if self._update is not None:
                self._probe.drop(self._update)
                self._update = None
            self._probe.close()
            self._probe = None
        if self._own and self.exporter is not None:
            self.exporter.close()
