"""Choice counters: what each of the eight heads chose, as the decision events say."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import ALPHA_TARGETS, TEMPOS
from support.pages import samples, value
from support.recordings import RECORDED_HEADS
from support.states import emitted, event, started

RECORDING = Path(__file__).parents[1] / "recordings" / "run1.telemetry.jsonl.gz"
TOTAL = "esper_tamiyo_choices_total"


def test_the_counters_equal_the_decision_events() -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, watch_process=False)
    wanted: Counter[tuple[str, str]] = Counter()
    with gzip.open(RECORDING, "rb") as lines:
        for line in lines:
            exporter.emit_line(line)
            event = json.loads(line)
            reported = event["data"] or {}
            if event["event_type"] != "ANALYTICS_SNAPSHOT" or reported["kind"] != "last_action":
                continue
            wanted["op", reported["action_name"]] += 1
            wanted["slot", reported["slot_id"]] += 1
            for head, field in (
                *(("blueprint", "blueprint_id"), ("style", "style")),
                *(("alpha_speed", "alpha_speed"), ("alpha_curve", "alpha_curve")),
            ):
                if reported[field] is not None:
                    wanted[head, reported[field]] += 1
            if reported["tempo_idx"] is not None:
                wanted["tempo", TEMPOS[reported["tempo_idx"]]] += 1
            if reported["alpha_target"] is not None:
                at = (0.5, 0.7, 1.0).index(reported["alpha_target"])
                wanted["alpha_target", ALPHA_TARGETS[at]] += 1
    shown: Counter[tuple[str, str]] = Counter()
    for (name, labels), number in samples(exporter.render().decode()).items():
        if name == TOTAL:
            found = dict(labels)
            shown[found["head"], found["choice"]] += int(number)
    assert +shown == wanted
    assert {head for head, _ in wanted} == set(RECORDED_HEADS)


def test_every_known_choice_counts_from_zero_and_an_unknown_one_as_other() -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, watch_process=False)
    event = {"event_type": "ANALYTICS_SNAPSHOT", "timestamp": "2026-06-01T08:00:00+00:00"}
    reported = {"kind": "last_action", "action_name": "DANCE", "style": "MADE_OF_CHEESE"}
    exporter.emit({**event, "data": reported})
    page = exporter.render().decode()
    assert value(page, TOTAL, head="op", choice="other") == 1
    assert value(page, TOTAL, head="style", choice="other") == 1
    assert value(page, TOTAL, head="alpha_curve", choice="SIGMOID_SHARP") == 0


DECISION = {"kind": "last_action", "action_name": "WAIT"}


@pytest.mark.parametrize(
    ("place", "choice"), [(0, TEMPOS[0]), (len(TEMPOS) - 1, TEMPOS[-1]), (len(TEMPOS), "other")]
)
def test_a_place_beyond_the_tempos_is_another_choice(place: int, choice: str) -> None:
    page = emitted(started(), event("ANALYTICS_SNAPSHOT", DECISION | {"tempo_idx": place}))
    assert value(page.render().decode(), TOTAL, head="tempo", choice=choice) == 1


def test_only_masked_decisions_are_counted_as_masked() -> None:
    masks = (True, False, False)
    events = [event("ANALYTICS_SNAPSHOT", DECISION | {"op_masked": mask}) for mask in masks]
    page = emitted(started(), *events).render().decode()
    assert value(page, "esper_tamiyo_masked_decisions_total", head="op") == 1
    assert value(page, "esper_tamiyo_masked_decisions_total", head="slot") is None
