"""A training that is over in a second, and what its exporter has to say of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
import torch

from esper_exporter import Exporter
from esper_exporter.demo.faults import Faults
from esper_exporter.demo.injection import fault
from esper_exporter.demo.stream import Stream
from esper_exporter.demo.training import Batch, Options, Training
from support.pages import Key, samples

SMALL = Options(seed=1, envs=1, slots=2, epochs=5, updates=3)
RUN = "small"


@dataclass
class Trained:
    """What a training left behind: its batches, the exporter, the telemetry file's text."""

    batches: list[Batch]
    exporter: Exporter
    file: io.StringIO

    @cached_property
    def page(self) -> str:
        """The page after the end."""
        return self.exporter.render().decode()

    @cached_property
    def samples(self) -> dict[Key, float]:
        return samples(self.page)

    def values(self, name: str, **labels: str) -> list[float]:
        """All samples of a name that carry these labels."""
        wanted = set(labels.items())
        return [
            v for (found, has), v in self.samples.items() if found == name and wanted <= set(has)
        ]

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample of a name that carries these labels; None where there is none."""
        found = self.values(name, **labels)
        assert len(found) <= 1, f"{name}{labels} has {len(found)} samples"
        return found[0] if found else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks are fastest so, and their sums the same each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    *inject: str,
    stall: Callable[[], object] = lambda: None,
    fails: type[Exception] | None = None,
    **options: Any,
) -> Trained:
    """A small training with faults; ``options`` differ from SMALL. It must die of ``fails``."""
    exporter = Exporter(port=0, run_id=RUN, state_dir="off", linger=0)
    trained = Trained([], exporter, io.StringIO())
    chosen = replace(SMALL, **options)
    dies = nullcontext() if fails is None else pytest.raises(fails)
    with one_thread(), dies, exporter:
        training = Training(
            chosen,
            Stream(exporter, trained.file, chosen.dual_emit),
            Faults([fault(text) for text in inject], stall),
        )
        for batch in training.batches():
            trained.batches.append(batch)
    return trained
