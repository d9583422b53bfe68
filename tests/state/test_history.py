"""The history of a run: numbers of its updates, and what its viewers read of them."""

from __future__ import annotations

import pytest

from esper_exporter.state.history import HEAD_TRAIL, HEAD_WINDOW, HELD_UPDATES, RunHistory
from support.states import emitted, started, update


def history_of(*numbers: int | None, skipped: int = -1) -> RunHistory:
    updates = [
        update(place, ppo_update_idx=number, grad_norm=float(place), skipped=place == skipped)
        for place, number in enumerate(numbers)
    ]
    return emitted(started(), *updates)._runs.current["default"].history


@pytest.mark.parametrize(
    ("reported", "numbers"),
    [
        ((None, None), [1, 2]),
        ((7, 8), [7, 8]),
        ((7, 90), [7, 8]),
        ((0, 90), [1, 2]),
        ((None, 90), [1, 2]),
    ],
)
def test_only_the_first_update_says_where_a_resumed_run_goes_on(
    reported: tuple[int | None, ...], numbers: list[int]
) -> None:
    history = history_of(*reported)
    assert [row.number for row in history.updates] == numbers
    assert [row.number for row in history.trail] == numbers


def test_updates_that_are_held_are_read_in_their_order() -> None:
    count = 2 * HELD_UPDATES + 3
    history = history_of(*[None] * count, skipped=5)
    rows = list(history.updates)
    assert [row.number for row in rows] == list(range(1, count + 1))
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    assert [row.values is None for row in rows] == [place == 5 for place in range(count)]
    assert [update.grad_norm for update in history.heads] == [
        float(place) for place in range(count - HEAD_WINDOW, count)
    ]
    assert len(history.trail) == HEAD_TRAIL
