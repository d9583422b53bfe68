"""CPU time of a page of 16,000 gauges: text, OpenMetrics, and compressed as servers compress it."""

from __future__ import annotations

import gzip

from isal import igzip
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.content import OurPage, TheirPage
from benchmarks.measure import Result, compare
from esper_exporter.metrics.exposition import OPENMETRICS


def _samples(page: bytes) -> dict[tuple[object, ...], str]:
    return {
        (sample.name, *sorted(sample.labels.items())): repr(sample.value)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def run(rounds: int) -> list[Result]:
    ours, theirs = OurPage(), TheirPage()
    assert _samples(ours.render()) == _samples(generate_latest(theirs.registry))
    return [
        compare(
            "page, text",
            ours.render,
            lambda: generate_latest(theirs.registry),
            60,
            rounds=rounds,
            ours_times=10,
            note="CPU time, 16,000 gauges, equal content",
        ),
        compare(
            "page, OpenMetrics",
            lambda: ours.render(OPENMETRICS),
            lambda: generate_openmetrics(theirs.registry),
            60,
            rounds=rounds,
            ours_times=10,
            note="CPU time, 16,000 gauges",
        ),
        compare(
            "page, gzip",
            lambda: igzip.compress(ours.render(), 1),
            lambda: gzip.compress(generate_latest(theirs.registry)),
            40,
            rounds=rounds,
            ours_times=10,
            note="CPU time; ours isal level 1, theirs zlib level 9 as its server does",
        ),
    ]
