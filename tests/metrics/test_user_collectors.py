"""Collectors that users add: on the page, and none of them costs more than itself."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from esper_exporter import Exporter
from support.pages import value, values

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SUCCESS = "esper_exporter_collector_success"


class Given(Collector):
    """Collects what a function returns."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def gauge(name: str, number: float = 1.0) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, "A gauge.", value=number)


def half() -> Iterator[Metric]:
    yield gauge("node_before")
    raise RuntimeError("in the middle")


def exits() -> Iterator[Metric]:
    raise SystemExit(3)


@pytest.fixture
def exporter() -> Exporter:
    return Exporter(port=0)


def test_its_families_are_on_the_page_in_both_formats(exporter: Exporter) -> None:
    counter = CounterMetricFamily("jobs", "Jobs.", value=3, created=1.5)
    exporter.add_collector(Given(lambda: [gauge("queue_length", 7.5), counter]), "queue")
    text = exporter.render().decode()
    assert value(text, "queue_length") == 7.5
    assert value(text, "jobs_total") == 3
    assert value(text, SUCCESS, collector="queue") == 1.0
    assert value(text, SUCCESS, collector="esper") == 1.0
    assert all(
        seconds >= 0 for seconds in values(text, "esper_exporter_collector_duration_seconds")
    )
    page = exporter.render(OPENMETRICS).decode()
    families = {family.name for family in parse_openmetrics(page)}
    assert {"queue_length", "jobs", "esper_exporter_build"} <= families
    assert page.count("# EOF") == 1
    assert page.endswith("# EOF\n")


@pytest.mark.parametrize("collect", [half, exits, lambda: [object()], lambda: None, lambda: [None]])
def test_one_that_fails_costs_only_itself(
    exporter: Exporter, collect: Callable[[], Iterable[Metric]], caplog: pytest.LogCaptureFixture
) -> None:
    exporter.add_collector(Given(collect), "broken")
    exporter.add_collector(Given(lambda: [gauge("queue_length")]), "queue")
    for _ in range(3):
        page = exporter.render().decode()
        assert value(page, SUCCESS, collector="broken") == 0.0
        assert value(page, SUCCESS, collector="queue") == 1.0
        assert value(page, "queue_length") == 1.0
        assert value(page, "node_before") is None
        assert value(page, "esper_exporter_runs") == 0.0
    assert caplog.text.count("collector broken") == 1


def test_one_that_hangs_is_waited_for_once_and_comes_back(exporter: Exporter) -> None:
    release = threading.Event()
    calls = []

    def collect() -> Iterable[Metric]:
        calls.append(threading.current_thread().name)
        release.wait(60)
        return [gauge("slow")]

    exporter.add_collector(Given(collect), "slow", seconds=0.05)
    exporter.add_collector(Given(lambda: [gauge("quick")]), "quick")
    for _ in range(5):
        page = exporter.render().decode()
        assert value(page, SUCCESS, collector="slow") == 0.0
        assert value(page, "quick") == 1.0
    assert calls == ["esper-exporter-collector-slow"]
    (thread,) = (t for t in threading.enumerate() if t.name == calls[0])
    release.set()
    thread.join(30)
    page = exporter.render().decode()
    assert value(page, SUCCESS, collector="slow") == 1.0
    assert value(page, "slow") == 1.0


def test_no_family_is_on_the_page_twice(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    ours = gauge("esper_exporter_runs", 9.0)
    exporter.add_collector(Given(lambda: [ours, gauge("queue_length", 1.0)]), "first")
    exporter.add_collector(Given(lambda: [gauge("queue_length", 2.0), gauge("other")]), "second")
    page = exporter.render().decode()
    names = [family.name for family in parse_text(page)]
    assert len(names) == len(set(names))
    assert value(page, "esper_exporter_runs") == 0.0
    assert value(page, "queue_length") == 1.0
    assert value(page, "other") == 1.0
    assert value(page, SUCCESS, collector="first") == 0.0
    assert value(page, SUCCESS, collector="second") == 0.0
    assert "names on the page already: esper_exporter_runs" in caplog.text
    assert "names on the page already: queue_length" in caplog.text


@pytest.mark.parametrize(
    ("name", "seconds"), [("esper", 0.5), ("queue", 0.5), ("new", 0.0), ("new", float("inf"))]
)
def test_bad_ones_are_refused_when_they_are_added(
    exporter: Exporter, name: str, seconds: float
) -> None:
    exporter.add_collector(Given(list), "queue")
    with pytest.raises(ValueError, match=name if name != "new" else "seconds"):
        exporter.add_collector(Given(list), name, seconds=seconds)


def test_what_has_no_collect_is_no_collector(exporter: Exporter) -> None:
    with pytest.raises(ValueError, match="no collector"):
        exporter.add_collector(object(), "thing")  # type: ignore[arg-type]


def test_it_is_served_and_the_class_names_it(exporter: Exporter) -> None:
    exporter.add_collector(Given(lambda: [gauge("queue_length", 4.0)]))
    with exporter, urllib.request.urlopen(f"{exporter.url}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    assert value(page, "queue_length") == 4.0
    assert value(page, SUCCESS, collector="Given") == 1.0
