"""Counters and histograms: what is held back and put in later counts as if it had come at once."""

from __future__ import annotations

import math
import random

import pytest

from esper_exporter import Exporter
from esper_exporter.state import counted
from esper_exporter.state.counters import HELD_ROWS, Distributions, HistogramRow, Tallies

ROW = HistogramRow(
    ((counted.DECISION_CONFIDENCE, ("op",)), (counted.DECISION_CONFIDENCE, ("slot",)))
)


def test_values_that_are_held_count_like_values_observed_one_by_one() -> None:
    draw = random.Random(3)
    odd = [None, math.nan, math.inf, -math.inf, -1.0, 0.1, 0.25, 1.0, 7.0]
    held, observed = Distributions(), Distributions()
    for _ in range(3 * HELD_ROWS + 5):
        values = [draw.choice([*odd, draw.random()]) for _ in ROW.keys]
        held.hold(ROW, values)
        for (histogram, labels), value in zip(ROW.keys, values, strict=True):
            observed.observe(histogram, value, *labels)
    held.settle()
    for key in ROW.keys:
        one, other = held.values[key], observed.values[key]
        assert one.counts == other.counts
        assert one.total == other.total
    assert held.changed.keys() == observed.changed.keys()


def test_a_histogram_without_a_usable_value_does_not_begin() -> None:
    held = Distributions()
    held.hold(ROW, [None, math.nan])
    held.settle()
    assert held.values == {}


def test_a_count_that_is_negative_is_left_out_and_counted() -> None:
    exporter = Exporter(port=0, state_dir="off")
    data = {"cuda_oom_events": -4, "compile_recompilations": 2, "cuda_memory_reserved_gb": 1.0}
    stamp = "2026-01-01T00:00:00+00:00"
    exporter.emit({"event_type": "INFRASTRUCTURE_SNAPSHOT", "timestamp": stamp, "data": data})
    page = exporter.render().decode()
    assert "esper_torch_memory_ooms_total{" not in page
    assert "esper_exporter_fields_ignored_total 1.0" in page


@pytest.mark.parametrize(
    ("by", "counts"), [(0.0, 0.0), (2.5, 2.5), (-1.0, None), (math.nan, None), (math.inf, None)]
)
def test_a_report_of_none_begins_a_counter_and_what_is_no_count_does_not(
    by: float, counts: float | None
) -> None:
    tallies = Tallies()
    tallies.add(counted.GAMING_STEPS, by=by)
    assert tallies.values.get((counted.GAMING_STEPS, ())) == counts


@pytest.mark.parametrize("by", [0.0, 2.5, -1.0, math.nan, math.inf])
def test_a_known_label_set_counts_as_any_other(by: float) -> None:
    key = (counted.NONFINITE_OBSERVATIONS, ("nan",))
    one, other = Tallies(), Tallies()
    for _ in range(2):
        one.add_to(key, by)
        other.add(key[0], *key[1], by=by)
        assert one.values == other.values
        if by:
            assert one.changes() == other.changes()


def phase_profile(number: int, **wall: float) -> dict[str, object]:
    phases = {
        name: {"wall_ms": time, "python_cpu_ms": time / 2, "python_cpu_ratio": 0.5}
        for name, time in wall.items()
    }
    return {
        "event_type": "PHASE_PROFILE_COMPLETED",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "event_id": f"profile-{number}",
        "data": {"phases": phases},
    }


def test_a_phase_of_the_vocabulary_is_timed_like_any_other() -> None:
    exporter = Exporter(port=0, state_dir="off")
    for number, wall in enumerate((30.0, 50.0, -1.0)):
        exporter.emit(phase_profile(2 * number, train=wall))
        exporter.emit(phase_profile(2 * number + 1, train=wall, mine=wall))
    exporter.emit(phase_profile(6))
    page = exporter.render().decode()

    def of(phase: str) -> list[float]:
        found = [line for line in page.splitlines() if f'phase="{phase}"' in line]
        return [float(line.split()[-1]) for line in found]

    assert of("train") == [2 * each for each in of("mine")]
    assert of("mine")
