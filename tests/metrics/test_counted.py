"""Counters are declared: none can be misspelt, and a row that fails costs only itself."""

from __future__ import annotations

import pytest

from esper_exporter import Exporter
from esper_exporter.metrics import rows
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.state import counted
from esper_exporter.state.counters import Counter, Histogram
from support.pages import samples, value
from support.recordings import telemetry_lines
from support.states import emitted, started, update


def test_what_is_declared_and_what_the_catalogue_shows_are_the_same() -> None:
    shown = [metric.counted for metric in catalogue().metrics if metric.counted is not None]
    assert len(shown) == len(counted.ALL) == len(set(counted.ALL))
    assert set(shown) == set(counted.ALL)
    by_hand = {
        metric.name
        for metric in catalogue().metrics
        if metric.kind == "counter" and metric.block == metric.name and metric.counted is None
    }
    assert by_hand == set()


@pytest.mark.parametrize("declared", counted.ALL, ids=lambda declared: declared.name)
def test_known_label_values_fit_the_labels(declared: Counter | Histogram) -> None:
    for labels in declared.known:
        assert len(labels) == len(declared.labels)
    if declared.measured:
        assert declared.start == ()
    elif not declared.labels:
        assert declared.start == ((),)


def test_every_counter_of_a_recording_is_on_the_page() -> None:
    exporter = Exporter(port=0)
    for line in telemetry_lines("run2b"):
        exporter.emit_line(line)
    page = samples(exporter.render().decode())
    run = exporter._runs.current["default"].state
    on_page = {(name, frozenset(labels)): value for (name, labels), value in page.items()}
    base = set(run.identity.labels())
    for (counter, labels), count in run.tallies.values.items():
        key = (counter.name, frozenset(base | set(zip(counter.labels, labels, strict=True))))
        assert on_page[key] == count
    for (histogram, labels), distribution in run.distributions.values.items():
        named = base | {("le", "+Inf")} | set(zip(histogram.labels, labels, strict=True))
        count = on_page[histogram.name + "_bucket", frozenset(named)]
        assert count == sum(distribution.counts)


def test_a_counter_whose_row_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    write = rows.RowSet.write

    def failing(self: rows.RowSet, values: list[float], *key: str) -> None:
        if self._block == counted.GRADIENT_EXPLOSIONS.name:
            raise ValueError("no such row")
        write(self, values, *key)

    exporter = emitted(started(), update(grad_norm=11.0))
    monkeypatch.setattr(rows.RowSet, "write", failing)
    page = exporter.render().decode()
    assert value(page, "esper_tamiyo_gradient_explosions_total") is None
    assert value(page, "esper_tamiyo_updates_total") == 1
    assert value(page, "esper_tolaria_epochs_total") == 0
    assert value(page, "esper_tamiyo_update_grad_norm_count") == 1
    page = exporter.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="publish") == 1
    exporter.emit(update(2.0))
    assert value(exporter.render().decode(), "esper_tamiyo_updates_total") == 2


def test_on_a_recording_nothing_is_counted_that_the_trainer_does_not_measure() -> None:
    exporter = Exporter(port=0)
    for line in telemetry_lines("run1"):
        exporter.emit_line(line)
    page = exporter.render()
    for declared in (
        counted.TRUST_REGION_VIOLATIONS,
        counted.LOG_PROB_UNDERFLOWS,
        counted.AMP_OVERFLOWS,
        counted.LOSS_SCALE_UPDATES,
    ):
        assert declared.name.encode() not in page
    assert value(page.decode(), "esper_tamiyo_updates_low_return_variance_total") == 5
    assert value(page.decode(), "esper_tamiyo_rollback_steps_zeroed_total") == 0


@pytest.mark.parametrize(
    ("field", "declared"),
    [
        ("trust_region_violations", counted.TRUST_REGION_VIOLATIONS),
        ("log_prob_underflow_count", counted.LOG_PROB_UNDERFLOWS),
        ("amp_overflow_count", counted.AMP_OVERFLOWS),
        ("loss_scale_updates", counted.LOSS_SCALE_UPDATES),
        ("rollback_steps_zeroed", counted.ROLLBACK_STEPS_ZEROED),
        ("ev_low_return_variance", counted.LOW_RETURN_VARIANCE),
        ("advantage_std_floored", counted.ADVANTAGE_STD_FLOORED),
        ("entropy_collapsed", counted.ENTROPY_COLLAPSED),
    ],
)
def test_a_measured_counter_begins_with_the_first_report(field: str, declared: Counter) -> None:
    exporter = emitted(started(), update(1.0))
    assert value(exporter.render().decode(), declared.name) is None
    exporter.emit(update(2.0, **{field: 0}))
    assert value(exporter.render().decode(), declared.name) == 0
    exporter.emit(update(3.0, **{field: 1}))
    assert value(exporter.render().decode(), declared.name) == 1


def test_amp_overflows_begin_with_a_loss_scale() -> None:
    exporter = emitted(started(amp_enabled=True), update(1.0, amp_overflow_detected=False))
    assert value(exporter.render().decode(), counted.AMP_OVERFLOWS.name) is None
    exporter.emit(update(2.0, amp_overflow_detected=False, loss_scale=65536.0))
    assert value(exporter.render().decode(), counted.AMP_OVERFLOWS.name) == 0
