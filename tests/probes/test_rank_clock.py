"""RankClock reports a step when the last gradient of the rank's own part is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from esper_exporter import RankClock


class Recorder:
    """Notes what a RankClock reports, in the place of an exporter."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def report_rank_step(self, step: int, seconds: float) -> None:
        assert seconds >= 0.0
        self.steps.append(step)


class Branches(torch.nn.Module):
    """Two layers, one of which is unused."""

    def __init__(self) -> None:
        super().__init__()
        self.used = torch.nn.Linear(4, 4)
        self.unused = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.used(x)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("model", [torch.nn.Linear(4, 4), Branches()], ids=["plain", "unused"])
def test_a_step_is_reported_once_after_its_last_backward_pass(
    model: torch.nn.Module, passes: int
) -> None:
    recorder = Recorder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with RankClock(model, optimizer, recorder) as clock:  # type: ignore[arg-type]
        for step in range(1, 4):
            reported = []
            for _ in range(passes):
                model(torch.ones(2, 4)).sum().backward()
                reported.append(recorder.steps.count(step))
            optimizer.step()
            optimizer.zero_grad()
            assert recorder.steps.count(step) == 1
            if step > 1:  # the first step shows how many gradients there are
                assert reported == [0] * (passes - 1) + [1]
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert recorder.steps == [1, 2, 3], "closed"
    clock.close()
