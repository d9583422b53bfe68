"""Bad input: the run continues, good events count, bad ones publish nothing, log once per kind."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from esper_exporter import Exporter
from support.served import page_seen

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(run: str = "run1") -> Iterator[dict[str, Any]]:
    with gzip.open(RECORDINGS / f"{run}.telemetry.jsonl.gz") as lines:
        for line in lines:
            yield json.loads(line)


EVENTS = list(recorded())
FIRST = {event["event_type"]: event for event in reversed(EVENTS)}


def with_data(name: str, **changes: Any) -> dict[str, Any]:
    """The first recorded event of a type, as a new event with other payload fields."""
    event = FIRST[name]
    return {**event, "event_id": None, "data": {**event["data"], **changes}}


def samples(page: bytes) -> list[Sample]:
    families = text_string_to_metric_families(page.decode())
    return [sample for family in families for sample in family.samples]


def total(page: bytes, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in samples(page)
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def exporter() -> Exporter:
    started = Exporter(port=0)
    started.emit(FIRST["TRAINING_STARTED"])
    return started


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"[1]", "malformed_json"),
        (b"\xff\xfe", "malformed_json"),
        (b"{}", "malformed"),
        (b'{"event_type": 7}', "malformed"),
        (b'{"event_type": "NO_SUCH_THING"}', "unknown_type"),
        (b'{"event_type": "EPOCH_COMPLETED"}', "missing_field"),
        (b'{"event_type": "EPOCH_COMPLETED", "data": {"env_id": 0}}', "missing_field"),
    ],
)
def test_a_line_that_is_no_event_is_counted_by_reason(
    exporter: Exporter, line: bytes, reason: str
) -> None:
    exporter.emit_line(line)
    page = exporter.render()
    assert total(page, "esper_exporter_events_rejected_total", reason=reason) == 1
    assert total(page, "esper_exporter_events_rejected_total") == 1
    assert total(page, "esper_exporter_internal_errors_total") == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"env_id": -1}, "invalid_value"),
        ({"env_id": "x"}, "wrong_type"),
        ({"val_accuracy": None}, "missing_field"),
        ({"val_accuracy": []}, "wrong_type"),
    ],
)
def test_an_epoch_that_cannot_be_used_leaves_no_value(
    exporter: Exporter, changes: dict[str, Any], reason: str
) -> None:
    exporter.emit(with_data("EPOCH_COMPLETED", **changes))
    page = exporter.render()
    assert total(page, "esper_exporter_events_rejected_total", reason=reason) == 1
    assert b"esper_tolaria_host_accuracy_ratio" not in page


def test_a_policy_update_without_its_fields_still_lights_the_latch(exporter: Exporter) -> None:
    exporter.emit(
        with_data("PPO_UPDATE_COMPLETED", policy_loss=None, head_nan_detected={"tempo": True})
    )
    page = exporter.render()
    assert total(page, "esper_tamiyo_head_nonfinite_latched") == 1
    assert total(page, "esper_tamiyo_head_nonfinite_latched", head="tempo", kind="nan") == 1
    assert total(page, "esper_tamiyo_updates_total") == 0


def test_a_hundred_thousand_environments_stay_within_bounds(exporter: Exporter) -> None:
    for env_id in range(100_000):
        exporter.emit(with_data("EPOCH_COMPLETED", env_id=env_id))
    page = exporter.render()
    assert total(page, "esper_tolaria_epochs_total") == 100_000
    shown = {s.labels["env_id"] for s in samples(page) if s.name == "esper_tolaria_host_loss"}
    assert 2 <= len(shown) <= 1024
    beyond = total(page, "esper_run_events_out_of_bounds_total")
    assert beyond == 100_000 - 1024


def test_a_megabyte_of_text_becomes_no_label(exporter: Exporter) -> None:
    huge = "x" * 1_000_000
    exporter.emit({**with_data("EPOCH_COMPLETED"), "group_id": huge})
    exporter.emit(with_data("SEED_GERMINATED", blueprint_id=huge))
    page = exporter.render()
    assert total(page, "esper_exporter_events_rejected_total", reason="invalid_value") == 2
    assert len(page) < 1_000_000


def test_many_different_names_are_counted_as_other(exporter: Exporter) -> None:
    for number in range(1000):
        exporter.emit(with_data("SEED_GERMINATED", blueprint_id=f"b{number}"))
    page = exporter.render()
    assert total(page, "esper_kasmina_germinations_total") == 1000
    assert total(page, "esper_kasmina_germinations_total", blueprint="other") > 800


def test_the_same_event_twice_counts_once(exporter: Exporter) -> None:
    for _ in range(2):
        exporter.emit(FIRST["EPOCH_COMPLETED"])
    page = exporter.render()
    assert total(page, "esper_tolaria_epochs_total") == 1
    assert total(page, "esper_exporter_events_duplicate_total", reason="repeated") == 1


@pytest.mark.parametrize("names", [("old", "new"), ("new", "old")])
def test_an_update_under_both_its_names_counts_once(
    exporter: Exporter, names: tuple[str, str]
) -> None:
    spelled = {"old": "PPO_UPDATE_COMPLETED", "new": "TAMIYO_POLICY_UPDATE"}
    for name in names:
        exporter.emit({**with_data("PPO_UPDATE_COMPLETED"), "event_type": spelled[name]})
    page = exporter.render()
    assert total(page, "esper_tamiyo_updates_total") == 1
    assert total(page, "esper_exporter_events_duplicate_total", reason="dual_emit") == 1


def test_numerical_instability_lights_nothing(exporter: Exporter) -> None:
    exporter.emit(FIRST["NUMERICAL_INSTABILITY_DETECTED"])
    page = exporter.render()
    assert total(page, "esper_tamiyo_head_nonfinite_latched") == 0
    assert total(page, "esper_tamiyo_nonfinite_latched") == 0
    assert total(page, "esper_simic_anomalies_total", type="numerical_instability") == 1


def test_an_update_reported_twice_counts_once_in_its_latch(exporter: Exporter) -> None:
    exporter.emit(with_data("PPO_UPDATE_COMPLETED", head_nan_detected={"op": True}))
    exporter.emit(
        with_data(
            "NUMERICAL_INSTABILITY_DETECTED",
            anomaly_type="ppo_finiteness_skip",
            detail="skipped. Sources: log_probs[op]: NaN detected; values: 2 non-finite",
        )
    )
    page = exporter.render()
    assert total(page, "esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 1
    assert total(page, "esper_tamiyo_nonfinite_latched", source="values") == 1


def test_a_second_training_is_a_new_run_with_clear_latches(exporter: Exporter) -> None:
    exporter.emit(with_data("PPO_UPDATE_COMPLETED", head_inf_detected={"slot": True}))
    later = {**FIRST["TRAINING_STARTED"], "event_id": None, "timestamp": "2026-11-22T00:00:00Z"}
    exporter.emit(later)
    page = exporter.render()
    runs = {s.labels["run_id"]: s.value for s in samples(page) if s.name == "esper_run_active"}
    assert sorted(runs.values()) == [0.0, 1.0]
    new = next(run for run, active in runs.items() if active)
    assert total(page, "esper_tamiyo_head_nonfinite_latched", run_id=new) == 0
    assert total(page, "esper_tamiyo_head_nonfinite_latched") == 1
    for _ in range(2):
        exporter.served(page_seen())
    assert {s.labels["run_id"] for s in samples(exporter.render()) if "run_id" in s.labels} == {new}


def test_two_groups_with_one_id_are_two_runs() -> None:
    exporter = Exporter(port=0)
    for group in ("A", "B"):
        exporter.emit({**FIRST["TRAINING_STARTED"], "event_id": None, "group_id": group})
        exporter.emit({**with_data("EPOCH_COMPLETED"), "group_id": group})
    page = exporter.render()
    assert total(page, "esper_tolaria_epochs_total", group_id="A") == 1
    assert total(page, "esper_tolaria_epochs_total", group_id="B") == 1


def test_an_event_with_the_wrong_group_makes_no_group() -> None:
    exporter = Exporter(port=0)
    exporter.emit(FIRST["TAMIYO_INITIATED"])
    assert total(exporter.render(), "esper_exporter_events_rejected_total", reason="no_run") == 1
    exporter.emit({**FIRST["TRAINING_STARTED"], "group_id": "A"})
    exporter.emit({**FIRST["TAMIYO_INITIATED"], "event_id": None, "group_id": "default"})
    page = exporter.render()
    groups = {s.labels["group_id"] for s in samples(page) if "group_id" in s.labels}
    assert groups == {"A"}
    assert total(page, "esper_tamiyo_initiations_total") == 1


def test_events_before_any_beginning_are_shown() -> None:
    exporter = Exporter(port=0)
    exporter.emit(FIRST["EPOCH_COMPLETED"])
    page = exporter.render()
    assert total(page, "esper_tolaria_epochs_total") == 1
    assert b"esper_tolaria_host_accuracy_ratio" in page
    assert not exporter.ready()


def test_each_kind_of_problem_is_logged_once(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="esper_exporter"):
        for _ in range(50):
            exporter.emit_line(b"{")
    assert len(caplog.records) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_mutation_of_a_real_event_ever_raises(data: st.DataObject) -> None:
    exporter = Exporter(port=0)
    exporter.emit(FIRST["TRAINING_STARTED"])
    for _ in range(4):
        event = dict(data.draw(st.sampled_from(EVENTS[:2000])))
        payload = dict(event["data"])
        for name in data.draw(st.lists(st.sampled_from(sorted(payload)), max_size=4)):
            payload[name] = data.draw(JSON)
        exporter.emit({**event, "event_id": None, "data": payload})
        exporter.emit(data.draw(JSON))
    page = exporter.render()
    assert total(page, "esper_exporter_internal_errors_total") == 0
    assert total(page, "esper_exporter_events_total") == 9
