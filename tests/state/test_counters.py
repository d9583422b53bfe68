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
        assert math.isclose(one.total, other.total, rel_tol=1e-12)
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
