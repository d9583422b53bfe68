"""The arithmetic of scale holds for a recorded run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.metrics.cardinality import series_of_run
from support.recordings import telemetry_lines


@pytest.mark.parametrize("name", ["run1", "run2b"])
def test_a_recorded_run_has_no_more_series_than_reckoned(name: str) -> None:
    exporter = Exporter(state_dir="off", watch_process=False)
    most = 0
    lines = telemetry_lines(name)
    for number, line in enumerate(lines):
        exporter.emit_line(line)
        if number % 100 == 0 or number == len(lines) - 1:
            page = exporter.render().splitlines()
            most = max(most, sum(b'{run_id="' in sample for sample in page))
    reckoned = series_of_run(envs=2, slots=3)
    assert 0.6 * reckoned < most <= reckoned


def test_each_env_and_each_slot_costs_the_same() -> None:
    env = series_of_run(2, 0) - series_of_run(1, 0)
    slot = series_of_run(1, 1) - series_of_run(1, 0)
    assert min(env, slot) > 0
    assert series_of_run(6, 4) == series_of_run(0, 0) + 6 * env + 24 * slot


def test_the_document_agrees_with_the_catalogue_within_a_tenth() -> None:
    text = (Path(__file__).parents[2] / "docs" / "SCALE.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) == 3
    for envs, slots, reported in rows:
        reckoned = series_of_run(int(envs), int(slots))
        assert int(reported.replace(",", "")) == pytest.approx(reckoned, rel=0.1)
