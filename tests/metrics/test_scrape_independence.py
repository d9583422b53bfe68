"""What a page says does not depend on who scraped when."""

from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from esper_exporter import Exporter
from support.partial_events import partial_runs
from support.recordings import NAMES, telemetry_lines
from support.states import emitted, event, started, update


def page_of_runs(exporter: Exporter) -> list[str]:
    """The lines about runs: those about the exporter itself tell of scrapes."""
    lines = exporter.render().decode().splitlines()
    return [line for line in lines if 'run_id="' in line]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_the_last_page_of_a_recording_is_the_same_whenever_it_was_scraped(
    name: str, seed: int
) -> None:
    lines = telemetry_lines(name)
    draw = random.Random(seed)
    moments = set(draw.sample(range(len(lines)), (3, 40, len(lines) // 4)[seed]))
    unseen, scraped = Exporter(port=0), Exporter(port=0)
    for place, line in enumerate(lines):
        unseen.emit_line(line)
        scraped.emit_line(line)
        if place in moments:
            scraped.render()
    assert page_of_runs(scraped) == page_of_runs(unseen)


@settings(max_examples=80, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(events=partial_runs(), moments=st.sets(st.integers(0, 30)))
def test_the_last_page_of_any_events_is_the_same_whenever_it_was_scraped(
    events: list[dict[str, object]], moments: set[int]
) -> None:
    unseen, scraped = Exporter(port=0), Exporter(port=0)
    for place, emitted_event in enumerate(events):
        unseen.emit(emitted_event)
        scraped.emit(emitted_event)
        if place in moments:
            scraped.render()
    assert page_of_runs(scraped) == page_of_runs(unseen)


def test_layers_that_the_last_update_did_not_measure_are_gone_scraped_or_not() -> None:
    measured = update(1.0, layer_gradient_health={"body.0": 0.5}, grad_norm_per_layer={"l": 1.0})
    for scrape_between in (False, True):
        exporter = emitted(started(), measured)
        if scrape_between:
            assert b"esper_tamiyo_layer_gradient_health_ratio" in exporter.render()
        exporter.emit(update(2.0))
        page = exporter.render()
        assert b"esper_tamiyo_layer_gradient_health_ratio" not in page
        assert b"esper_tamiyo_layer_grad_norm" not in page


def test_entropy_in_nats_follows_the_slots_that_are_known_scraped_or_not() -> None:
    pages = []
    for scrape_between in (False, True):
        exporter = emitted(update(1.0, head_slot_entropy=0.5))
        if scrape_between:
            exporter.render()
        for slot in ("r0c0", "r0c1"):
            exporter.emit(
                event(
                    "SEED_GERMINATED",
                    {"slot_id": slot, "env_id": 0, "blueprint_id": "noop", "params": 1},
                )
            )
        pages.append(page_of_runs(exporter))
        assert any("esper_tamiyo_head_entropy_nats{" in line for line in pages[-1])
    assert pages[0] == pages[1]
