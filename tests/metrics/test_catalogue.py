"""The catalogue is consistent: no two metrics share a name, and a page of all of them parses."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from esper_exporter.metrics.catalogue import Catalogue, CatalogueError, catalogue
from esper_exporter.metrics.exposition import OPENMETRICS, TEXT, Page, capture, header
from esper_exporter.metrics.metric import Kind, Metric
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.source_checks import SourceError, check_sources
from esper_exporter.metrics.table import ValueTable

PARSERS = {TEXT: parse_text, OPENMETRICS: parse_openmetrics}


def metric(name: str, kind: Kind) -> Metric:
    return Metric(name=name, kind=kind, help="Test.", block=name, buckets=(1.0,))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("esper_run_things", "gauge"), ("esper_run_things_total", "counter")),
        (("esper_run_things", "gauge"), ("esper_run_things_info", "info")),
        (("esper_run_things", "histogram"), ("esper_run_things_total", "counter")),
        (("esper_run_things_count", "gauge"), ("esper_run_things", "histogram")),
        (("esper_run_things_created", "gauge"), ("esper_run_things_total", "counter")),
        (("esper_run_things", "gauge"), ("esper_run_things", "gauge")),
    ],
)
def test_metrics_that_would_share_a_name_are_refused(
    one: tuple[str, Kind], other: tuple[str, Kind]
) -> None:
    Catalogue((metric(*one),))
    for pair in ((one, other), (other, one)):
        with pytest.raises(CatalogueError, match="esper_run_things"):
            Catalogue(tuple(metric(*each) for each in pair))


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_a_page_with_every_metric_present_parses_strictly(form: str) -> None:
    blocks = compiled().blocks
    table = ValueTable(blocks)
    for block in blocks:
        fixed = {name for column in block.columns for name, _ in column.labels}
        labels = [(name, "x") for name in block.metrics[0].labels if name not in fixed]
        row = table.add_row(block.name, labels)
        assert row is not None
        table.write(row, [1.0] * len(block.columns))
    page = Page(catalogue().metrics, form).render(capture(table, None)).decode()
    families = {family.name: family for family in PARSERS[form](page)}
    for declared in catalogue().metrics:
        kind = "gauge" if form == TEXT and declared.kind == "info" else declared.kind
        name = declared.name if kind == "gauge" else declared.family
        assert families[name].type == kind, declared.name
        assert families[name].samples, declared.name
        if form == OPENMETRICS and declared.unit:
            assert families[name].unit == declared.unit
    assert len(families) == len(catalogue().metrics)


def test_openmetrics_names_the_unit_of_a_family_that_ends_in_it_and_of_no_other() -> None:
    for declared in catalogue().metrics:
        ends = declared.family.rsplit("_", 1)[-1] == declared.unit
        assert ends == bool(declared.unit), declared.name


@pytest.mark.parametrize(
    "source",
    [
        "tamiyo.entropi",
        "tamiyo.head_{head}_entropi",
        "envs[{env_id}].seeds[{slot_id}].alfa",
        "envs[{env_id}].reward_components.totl",
        "event:PPO_UPDATE_COMPLETED.entropi",
        "event:PPO_UPDATE_COMPLETE.entropy",
        "event:ANALYTICS_SNAPSHOT[kind=batch_stats].fpz",
        "event:ANALYTICS_SNAPSHOT[kind=last_action].reward_components.pbrs",
        "tamiyo.entropy.deeper",
        "",
    ],
)
def test_a_source_that_leads_nowhere_is_refused(source: str) -> None:
    broken = Metric(
        name="esper_run_broken", kind="gauge", help="Test.", block="run", sources=(source,)
    )
    with pytest.raises(SourceError, match="esper_run_broken"):
        check_sources(broken, filled=True)


def test_a_derived_gauge_that_nothing_reads_is_refused() -> None:
    unread = Metric(
        name="esper_run_broken", kind="gauge", help="Test.", block="run", sources=("derived: x",)
    )
    check_sources(unread, filled=False)
    with pytest.raises(SourceError, match="nothing reads it"):
        check_sources(unread, filled=True)


@pytest.mark.parametrize(
    ("name", "named"), [("esper_x_wait_seconds", True), ("esper_x_seconds_waited", False)]
)
def test_a_family_that_does_not_end_in_its_unit_has_no_unit_line(name: str, named: bool) -> None:
    metric = Metric(name=name, kind="gauge", help="Text.", block="run", unit="seconds")
    lines = header(metric, OPENMETRICS)
    assert (f"# UNIT {name} seconds\n".encode() in lines) is named
