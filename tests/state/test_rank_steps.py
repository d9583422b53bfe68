"""Steps of ranks: all choose the same ones to compare, without talking to each other."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter import Exporter
from esper_exporter.state.rank_steps import CHECK_SECONDS, RankSteps
from support.pages import value, values


@given(
    step_seconds=st.floats(0.001, 100.0),
    skew=st.floats(0.9999, 1.0001),
    steps=st.integers(200, 2000),
)
def test_ranks_in_step_compare_the_same_steps(step_seconds: float, skew: float, steps: int) -> None:
    ranks = [RankSteps(), RankSteps()]
    same = 0
    for step in range(1, steps):
        for rank, factor in zip(ranks, (1.0, skew), strict=True):
            rank.report(step, step_seconds, 1000.0 + step * step_seconds * factor)
            rank.check(step, 1.0, None)
        same += ranks[0].checked_step == ranks[1].checked_step
    assert same > 0.4 * steps


def test_compared_steps_are_seconds_apart() -> None:
    rank = RankSteps()
    changes = []
    for step in range(1, 20_000):
        rank.report(step, 0.01, step * 0.01)
        before = rank.checked_step
        rank.check(step, 1.0, 2.0)
        if rank.checked_step != before:
            changes.append(step * 0.01)
    gaps = [b - a for a, b in pairwise(changes)]
    assert len(gaps) > 5 and min(gaps) >= CHECK_SECONDS


def test_a_rank_reports_its_step_and_what_must_be_equal() -> None:
    with Exporter(port=0, run_id="r", state_dir="off") as exporter:
        exporter.report_rank_step(1, 0.5)
        assert values(exporter.render().decode(), "esper_rank_update") == [], "no run yet"
        exporter.emit(
            {
                "event_type": "SEED_GERMINATED",
                "timestamp": time.time(),
                "slot_id": "r0c0",
                "data": {"slot_id": "r0c0", "env_id": 0, "blueprint_id": "norm", "params": 1},
            }
        )
        exporter.report_rank_step(7, 0.25)
        exporter.check_ranks(7, gradient_norm=1.5)
        page = exporter.render().decode()
        assert value(page, "esper_rank_update", run_id="r") == 7.0
        assert value(page, "esper_rank_step_seconds") == 0.25
        assert value(page, "esper_rank_last_update_timestamp_seconds") == pytest.approx(
            time.time(), abs=60
        )
        assert value(page, "esper_rank_checked_gradient_norm") == 1.5
        assert values(page, "esper_rank_checked_loss") == []


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8"}, 3),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, 2),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1),
        ({"RANK": "high", "WORLD_SIZE": "8"}, None),
    ],
)
def test_the_launcher_says_the_rank(environment: dict[str, str], rank: int | None) -> None:
    from esper_exporter.settings import read_settings

    assert read_settings({}, environment).rank == rank
    assert read_settings({"rank": 5}, environment).rank == 5
