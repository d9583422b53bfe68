"""The hub that delivers events: found, emptied at the end, and reported when it drops some."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.state import hub as hub_module
from support.pages import value, values
from support.queueing_hub import QueueingHub
from support.recordings import telemetry_lines
from support.trainer import STARTED, latching

DROPPED = "esper_exporter_hub_events_dropped_total"
DELIVERED = "esper_exporter_hub_events_delivered_total"
LATCH = "esper_tamiyo_head_nonfinite_latched"


class Told:
    """A hub that reports what it is given to report."""

    def __init__(self) -> None:
        self.health: Any = {"hub_dropped_events": 0, "backend_stats": {}}
        self.flushing: Any = lambda: None

    def add_backend(self, backend: Any) -> None:
        backend.start()

    def flush(self, timeout: float | None = None) -> bool:
        self.flushing()
        return True

    def get_health_snapshot(self) -> Any:
        return self.health


def exporter_of(hub: Any) -> Exporter:
    made = Exporter(port=0, state_dir="off", linger=0, gpu_vitals="off", host_vitals="off")
    hub.add_backend(made)
    return made


def test_closing_waits_for_what_the_hub_holds() -> None:
    hub = QueueingHub(delay=0.05)
    exporter = exporter_of(hub)
    hub.emit(STARTED)
    hub.emit(latching())
    exporter.close()
    page = exporter.render().decode()
    assert value(page, LATCH, head="op", kind="nan") == 1
    assert value(page, "esper_run_finished") == 1


def test_an_exporter_that_no_hub_started_has_no_series_of_a_hub() -> None:
    with Exporter(port=0, state_dir="off", gpu_vitals="off", host_vitals="off") as exporter:
        page = exporter.render().decode()
    assert values(page, DROPPED) == []
    assert values(page, DELIVERED) == []


def test_a_hub_can_be_named() -> None:
    hub = QueueingHub()
    exporter = Exporter(port=0, state_dir="off", gpu_vitals="off", host_vitals="off")
    exporter.use_hub(hub)
    assert value(exporter.render().decode(), DROPPED, queue="hub") == 0
    exporter.close()
    assert hub.flushes
    with pytest.raises(TypeError):
        exporter.use_hub(object())


def test_what_the_hub_drops_is_counted_by_queue() -> None:
    hub = QueueingHub(backend_queue_size=1)
    exporter = exporter_of(hub)
    assert value(exporter.render().decode(), DROPPED, queue="Exporter") == 0
    gate = threading.Event()
    hub.emit(Holding(gate))
    while hub._workers[0].events.qsize():
        time.sleep(0.001)
    lines = telemetry_lines("run1")[:5]
    for line in lines:
        hub.emit(line)  # one is queued, four are dropped
    gate.set()
    exporter.flush_hub()
    page = exporter.render().decode()
    exporter.close()
    assert value(page, DROPPED, queue="Exporter") == 4
    assert value(page, DROPPED, queue="hub") == 0
    assert value(page, DELIVERED, queue="Exporter") == 2


class Holding:
    """An event whose reading waits."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    @property
    def event_type(self) -> str:
        self._gate.wait(10)
        return "UNHEARD_OF"


def test_a_hub_that_was_reset_counts_on() -> None:
    hub = Told()
    exporter = exporter_of(hub)
    for count in (3, 5, 1):  # 1: it was reset, and dropped one since
        hub.health = {"hub_dropped_events": count, "backend_stats": {}}
        page = exporter.render().decode()
    exporter.close()
    assert value(page, DROPPED, queue="hub") == 6


@pytest.mark.parametrize("health", [None, {}, {"hub_dropped_events": "many", "backend_stats": 3}])
def test_a_hub_that_reports_nonsense_costs_only_its_series(health: Any) -> None:
    hub = Told()
    hub.health = health
    exporter = exporter_of(hub)
    exporter.emit(STARTED)
    page = exporter.render().decode()
    exporter.close()
    assert values(page, DROPPED) == []
    assert value(page, "esper_run_active") == 1
    assert value(exporter.render().decode(), "esper_exporter_internal_errors_total", where="hub")


def test_a_hub_that_never_empties_is_waited_for_once_and_not_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "FLUSH_SECONDS", 0.2)
    hub = Told()
    never = threading.Event()
    calls: list[float] = []

    def hang() -> None:
        calls.append(time.monotonic())
        never.wait(30)

    hub.flushing = hang
    exporter = exporter_of(hub)
    exporter.emit(STARTED)
    begun = time.monotonic()
    exporter.close()
    exporter.close()
    took = time.monotonic() - begun
    never.set()
    assert len(calls) == 1
    assert took < 10
    assert value(exporter.render().decode(), "esper_run_finished") == 1


def test_a_latch_lit_from_the_training_thread_is_on_disk_at_once(tmp_path: Path) -> None:
    hub = QueueingHub(delay=60.0)  # as good as never
    exporter = Exporter(port=None, state_dir=tmp_path, gpu_vitals="off", host_vitals="off")
    hub.add_backend(exporter)
    hub.emit(latching())
    exporter.report_nonfinite("log_probs", head="op", kind="inf")
    exporter.report_nonfinite("the moon")
    (kept,) = tmp_path.glob("*.latches.json")
    heads = json.loads(kept.read_text())
    assert "log_probs" in str(heads)
    page = exporter.render().decode()
    assert value(page, LATCH, head="op", kind="inf") == 1
    assert value(page, LATCH, head="op", kind="nan") == 0
    assert value(page, "esper_tamiyo_nonfinite_latched", source="other") == 1
    exporter.close()


def test_many_threads_may_light_one_latch() -> None:
    exporter = Exporter(port=None, state_dir="off", gpu_vitals="off", host_vitals="off")
    exporter.emit(STARTED)
    threads = [threading.Thread(target=exporter.report_nonfinite, args=("loss",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exporter.emit(latching())
    page = exporter.render().decode()
    assert value(page, "esper_tamiyo_nonfinite_latched", source="loss") == 1
    assert value(page, "esper_tamiyo_nonfinite_updates_total", source="loss") == 1
