"""The arithmetic of docs/SCALE.md: laws that fit what was measured within a fifth."""

from __future__ import annotations

import gzip
import urllib.request
from dataclasses import replace
from itertools import pairwise

import pytest
from benchmarks.page_server import serving
from benchmarks.scale_document import BEGIN, DOCUMENT, END, document
from benchmarks.scale_model import (
    ALLOWED,
    Law,
    differences,
    fit,
    laws_of,
    model_of,
    predict,
    read,
)


def test_every_law_is_within_a_fifth_of_what_was_measured_at_each_size() -> None:
    sizes = read().sizes
    found = differences(sizes)
    assert len(found) == sum(law.holds_for(size) for law in laws_of(sizes) for size in sizes)
    assert {key: off for key, off in found.items() if abs(off) > ALLOWED} == {}


def test_the_sizes_are_far_apart_and_every_target_was_scraped() -> None:
    measured = read()
    targets = [size["targets"] for size in measured.sizes]
    assert len(set(targets)) >= 3
    assert max(targets) >= 30 * min(targets)
    assert all(size["up"] == size["targets"] for size in (*measured.sizes, measured.dense))


def test_the_bytes_of_a_sample_are_those_of_full_chunks() -> None:
    dense = read().dense
    assert dense["samples"] / dense["series"] > 120


def test_durations_are_shown_only_where_the_machine_did_little_else() -> None:
    measured = read()
    for cores, shown in ((0.1, True), (1.5, False)):
        sizes = [
            {**size, "other_cores": cores, "rules_seconds": 1.0, "query_seconds": 0.1}
            for size in measured.sizes
        ]
        assert ("| all rules take, once, s |" in document(replace(measured, sizes=sizes))) == shown


def test_the_document_has_what_the_model_says() -> None:
    text = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert text == document(read())


def test_a_law_finds_the_coefficients_that_made_the_numbers() -> None:
    law = Law("y", "", "", 1, (lambda _: 1.0, lambda size: size["x"]))
    sizes = [{"x": x, "y": 5.0 + 3.0 * x} for x in (1.0, 10.0, 100.0)]
    assert fit(law, sizes) == pytest.approx([5.0, 3.0])
    assert predict(law, [5.0, 3.0], {"x": 7.0}) == 26.0


def test_no_coefficient_is_below_nothing() -> None:
    law = Law("y", "", "", 1, (lambda _: 1.0, lambda size: size["x"]))
    found = fit(law, [{"x": x, "y": 3.0 * x - 2.0} for x in (1.0, 10.0, 100.0)])
    assert found[0] == 0.0
    assert found[1] > 0.0


def test_more_runs_cost_more_of_everything() -> None:
    model = model_of(read().sizes)
    costs = [model.of(runs, 3400.0) for runs in (100, 1000, 10_000)]
    for less, more in pairwise(costs):
        assert all(
            less[name] < more[name]
            for name in ("series", "samples_per_second", "memory_bytes", "cores")
        )


def test_each_run_is_served_its_pages_in_turn_from_one_of_its_own() -> None:
    pages = [b"a 1\n", b"a 2\n", b"a 3\n"]

    def get(port: int, run: int) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{run}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            return gzip.decompress(answer.read())

    with serving(pages) as (port, size):
        assert [get(port, 0) for _ in range(4)] == [pages[1], pages[2], pages[0], pages[1]]
        assert get(port, 1) == pages[2]
    assert size == pytest.approx(len(gzip.compress(pages[0], 1)), abs=2)
