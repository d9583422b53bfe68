"""The ten best episodes of a run: which stay, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from contract.border import like, now
from esper_exporter.contract.reader import read
from esper_exporter.state.aggregator import Aggregator
from esper_exporter.state.run import RunIdentity, RunState
from esper_exporter.state.snapshot import BestRunRecord


def run_of(*peaks: float) -> RunState:
    """A run of batches with one environment each, whose best accuracies these are."""
    state = RunState(RunIdentity("night", "default", 0))
    for number, peak in enumerate(peaks):
        apply(state, "EPOCH_COMPLETED", env_id=0, val_accuracy=peak)
        apply(state, "BATCH_EPOCH_COMPLETED", episodes_completed=number + 1, n_envs=1)
    return state


def apply(state: RunState, name: str, **data: Any) -> None:
    Aggregator(state).apply(read(like(name, {"slot_id": None}, **data), now))


def places(state: RunState) -> list[tuple[int, float]]:
    return [(record.episode, record.peak_accuracy) for record in state.snapshot.best_runs]


@pytest.mark.parametrize(
    "peaks",
    [
        [50.0, 60.0, 40.0],
        [50.0] * 12,
        [float(number) for number in range(1, 15)],
        [float(number) for number in range(14, 0, -1)],
        [5.0, 80.0, 80.0, 3.0, 90.0, 80.0, 5.0, 5.0, 7.0, 1.0, 5.0, 80.0, 2.0, 99.0],
    ],
)
def test_the_ten_best_stay_the_earlier_of_two_equal_ones(peaks: list[float]) -> None:
    ranking = sorted(enumerate(peaks), key=lambda each: each[1], reverse=True)
    assert places(run_of(*peaks)) == ranking[:10]


def test_a_ranking_that_was_given_in_any_order_is_put_in_order() -> None:
    state = run_of()
    for episode, peak in enumerate((10.0, *[70.0] * 11)):
        record = BestRunRecord(
            env_id=0, episode=100 + episode, peak_accuracy=peak, final_accuracy=1.0
        )
        state.bare_snapshot.best_runs.append(record)
    apply(state, "EPOCH_COMPLETED", env_id=0, val_accuracy=71.0)
    apply(state, "BATCH_EPOCH_COMPLETED", episodes_completed=1, n_envs=1)
    assert places(state) == [(0, 71.0), *((101 + place, 70.0) for place in range(9))]
