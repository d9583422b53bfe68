"""A page parses back to exactly the values that were put in, in both formats."""

from __future__ import annotations

import gzip
import math
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from esper_exporter import Exporter
from esper_exporter.metrics.exposition import OPENMETRICS, TEXT, Page, capture
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import ABSENT, Block, ValueTable
from support.programs import program

RECORDINGS = Path(__file__).parents[1] / "recordings"
GAUGE = Metric(
    name="esper_test_value", kind="gauge", help='A "gauge" with \\ and\nlines.', block="b"
)
OTHER = Metric(
    name="esper_test_other_seconds", kind="gauge", help="Seconds.", block="b", unit="seconds"
)
COUNTER = Metric(name="esper_test_things_total", kind="counter", help="Things.", block="c")
HISTOGRAM = Metric(
    name="esper_test_sizes", kind="histogram", help="Sizes.", block="h", buckets=(0.1, 1.0)
)
INFO = Metric(name="esper_test_build_info", kind="info", help="Build.", block="i")
METRICS = (GAUGE, OTHER, COUNTER, HISTOGRAM, INFO)
PARSERS = {TEXT: parse_text, OPENMETRICS: parse_openmetrics}

ODD = (math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-320, 1e308, 5e-324, 1 / 3, 123456789.123456789)
HOSTILE = ('a"b', "a\\b", "a\nb", "ü€😀", "", 'x"} 1\n# EOF', "\\n", "{}", " ")


def new_table() -> ValueTable:
    names = dict.fromkeys(metric.block for metric in METRICS)
    return ValueTable([Block.of(name, [m for m in METRICS if m.block == name]) for name in names])


def samples(table: ValueTable, form: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = Page(METRICS, form).render(capture(table, None)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in PARSERS[form](page)
        for sample in family.samples
    }


def bits(value: float) -> bytes:
    return struct.pack("<d", math.nan if value != value else value)


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.floats() | st.sampled_from(ODD)),
        max_size=6,
        unique_by=lambda pair: pair[0].encode("utf-8", "replace"),
    )
)
def test_any_label_and_any_number_come_back_as_they_were(
    form: str, reported: list[tuple[str, float]]
) -> None:
    table = new_table()
    for label, value in reported:
        row = table.add_row("b", (("name", label),))
        assert row is not None
        table.write(row, (value, ABSENT))
    found = samples(table, form)
    assert {key: bits(value) for key, value in found.items()} == {
        ("esper_test_value", (("name", label.encode("utf-8", "replace").decode()),)): bits(value)
        for label, value in reported
    }


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_stays_a_label(form: str, label: str) -> None:
    table = new_table()
    row = table.add_row("b", (("name", label),))
    assert row is not None
    table.write(row, (1.5, 2.5))
    assert samples(table, form) == {
        ("esper_test_value", (("name", label),)): 1.5,
        ("esper_test_other_seconds", (("name", label),)): 2.5,
    }


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_what_is_absent_has_neither_a_sample_nor_a_header(form: str) -> None:
    table = new_table()
    row = table.add_row("b", ())
    assert row is not None
    page = Page(METRICS, form)
    assert b"esper_test" not in page.render(capture(table, None))
    table.write(row, (1.0, ABSENT))
    shown = page.render(capture(table, None))
    assert b"esper_test_value" in shown and b"esper_test_other_seconds" not in shown
    table.write(row, (ABSENT, math.nan))
    shown = page.render(capture(table, None))
    assert b"esper_test_value" not in shown and b"esper_test_other_seconds NaN" in shown
    table.remove_row(row)
    assert b"esper_test" not in page.render(capture(table, None))


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_counters_histograms_and_infos_are_what_they_say(form: str) -> None:
    table = new_table()
    for block, values in (("c", (3.0,)), ("h", (1.0, 2.0, 4.0, 7.5, 4.0)), ("i", (1.0,))):
        row = table.add_row(block, (("version", "1"),))
        assert row is not None
        table.write(row, values)
    page = Page(METRICS, form).render(capture(table, None)).decode()
    families = {family.name: family for family in PARSERS[form](page)}
    version = (("version", "1"),)
    found = samples(table, form)
    assert found["esper_test_things_total", version] == 3.0
    assert found["esper_test_sizes_bucket", (("le", "+Inf"), *version)] == 4.0
    assert found["esper_test_sizes_count", version] == 4.0
    assert families["esper_test_things"].type == "counter"
    assert families["esper_test_sizes"].type == "histogram"
    assert page.endswith("# EOF\n") == (form == OPENMETRICS)


def test_the_table_grows_and_keeps_what_it_holds() -> None:
    table = new_table()
    for number in range(3000):
        row = table.add_row("b", (("n", str(number)),))
        assert row is not None
        table.write(row, (float(number), ABSENT))
    found = samples(table, TEXT)
    assert len(found) == 3000
    assert found["esper_test_value", (("n", "2999"),)] == 2999.0


def test_rows_that_lie_together_are_written_in_one_go_and_scattered_ones_too() -> None:
    table = new_table()
    rows = [table.add_row("b", (("n", str(n)),)) for n in range(4)]
    kept = [row for row in rows if row is not None]
    table.write_rows(kept, [(float(n), float(-n)) for n in range(4)])
    table.write_rows([kept[0], kept[2]], [(10.0, 11.0), (12.0, 13.0)])
    assert table.values[: table.used].tolist() == [10.0, 11.0, 1.0, -1.0, 12.0, 13.0, 3.0, -3.0]


def test_the_cap_refuses_what_there_may_be_too_many_of_and_nothing_else() -> None:
    table = ValueTable([Block.of("b", [GAUGE])], max_series=2)
    assert table.add_row("b", (("n", "1"),)) is not None
    assert table.add_row("b", (("n", "2"),)) is not None
    assert table.add_row("b", (("n", "3"),)) is None
    assert table.add_row("b", (("n", "latch"),), capped=False) is not None


def test_absence_survives_a_copy_and_differs_from_nan() -> None:
    values = np.array([ABSENT, math.nan])
    assert values.copy().view(np.uint64)[0] != values.view(np.uint64)[1]


@pytest.mark.parametrize("run", ["run1", "run2b"])
def test_promtool_has_nothing_to_say_about_a_page(run: str) -> None:
    exporter = Exporter(port=0)
    with gzip.open(RECORDINGS / f"{run}.telemetry.jsonl.gz") as lines:
        for line in lines:
            exporter.emit_line(line)
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=exporter.render(), capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    list(parse_openmetrics(exporter.render("application/openmetrics-text").decode()))


def test_a_registry_of_ones_own_shows_the_same_samples() -> None:
    exporter = Exporter(port=0)
    with gzip.open(RECORDINGS / "run2b.telemetry.jsonl.gz") as lines:
        for line in lines:
            exporter.emit_line(line)
    exporter.render()
    page = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse_text(exporter.render().decode())
        for s in family.samples
    }
    collected = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in exporter.collector().collect()
        for s in family.samples
    }
    assert page.keys() == collected.keys()
    differing = {
        name
        for (name, labels), value in page.items()
        if bits(value) != bits(collected[name, labels])
    }
    # Each look at the state takes a time of its own.
    assert differing <= {
        "esper_exporter_collector_duration_seconds",
        "esper_exporter_clock_timestamp_seconds",
    }
