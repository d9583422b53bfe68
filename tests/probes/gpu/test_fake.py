"""Simulated GPUs have every value that real ones may have, carry source="fake", and vary."""

from __future__ import annotations

from itertools import pairwise

import pytest

from esper_exporter.metrics.families.gpu_metrics import METRICS
from esper_exporter.probes.gpu.driver import OWN_FIELDS, SLOW_FIELDS, WHOLE_FIELDS
from esper_exporter.probes.gpu.fake import READERS, FakeDriver, Fault
from support.machine import Clock, Sampled, gpu_page
from support.nvml import ScriptedNvml
from support.pages import value, values


def sampled(**options: object) -> tuple[Sampled, Clock]:
    clock = Clock()
    return Sampled(driver=FakeDriver(2, clock=clock, **options), slow_every=1.0), clock


def test_it_reads_what_nvml_reads() -> None:
    assert set(READERS) == {*WHOLE_FIELDS, *OWN_FIELDS, *SLOW_FIELDS}
    fake, _ = sampled()
    real = Sampled(ScriptedNvml(), slow_every=1.0)
    names = [{cell[0] for cell in each.step().gpus[0].cells} for each in (fake, real)]
    assert names[0] == names[1]
    reported = {"esper_gpu_present", "esper_gpu_info", "esper_gpu_last_sample_timestamp_seconds"}
    beside = {"esper_gpu_xid", "esper_gpu_mig", "esper_gpu_used_by_run", "esper_exporter_gpu"}
    everything = {m.name for m in METRICS if not m.name.startswith(tuple(beside))}
    assert names[0] | reported == everything


def test_its_page_marks_it_as_fake() -> None:
    fake, _ = sampled()
    fake.step()
    assert values(fake.page, "esper_gpu_info", source="fake") == [1.0, 1.0]
    assert values(fake.page, "esper_gpu_info", source="nvml") == []


def test_its_numbers_move_and_stay_plausible() -> None:
    fake, clock = sampled()
    energy, load = [], set()
    for _ in range(60):
        clock.now += 7
        cells = fake.step().gpus[0].cells
        load.add(cells["esper_gpu_utilization_ratio",])
        energy.append(cells["esper_gpu_energy_joules_total",])
        assert 0 <= cells["esper_gpu_utilization_ratio",] <= 1
        assert 0 < cells["esper_gpu_memory_used_bytes",] < cells["esper_gpu_memory_total_bytes",]
        assert 30 <= cells["esper_gpu_temperature_celsius",] < 90
        assert cells["esper_gpu_power_watts",] <= cells["esper_gpu_power_limit_watts",]
    assert len(load) > 3
    assert all(before < after for before, after in pairwise(energy))


@pytest.mark.parametrize(("seconds", "hot"), [(9, False), (11, True), (21, False)])
def test_a_gpu_overheats_on_request(seconds: float, hot: bool) -> None:
    fake, clock = sampled(faults=[Fault("hot", gpu=1, at=10, until=20)])
    clock.now = seconds
    fake.step()
    temperature = value(fake.page, "esper_gpu_temperature_celsius", gpu="1")
    assert (temperature > 90) is hot
    throttled = value(fake.page, "esper_gpu_throttled", gpu="1", reason="hw_thermal_slowdown")
    assert throttled == float(hot)


def test_a_gpu_falls_off_the_bus_and_returns_on_request() -> None:
    fake, clock = sampled(faults=[Fault("lost", gpu=0, at=10, until=50)])
    shown = []
    for now in (5, 15, 60):
        clock.now = now
        fake.step(40.0)
        shown.append(len(values(fake.page, "esper_gpu_power_watts")))
    assert shown == [2, 1, 2]


def test_it_reports_an_xid_on_request() -> None:
    clock = Clock()
    driver = FakeDriver(2, faults=[Fault("xid", gpu=1, at=10, code=48)], clock=clock)
    watch = driver.watch()
    assert watch.wait(0.0) is None
    clock.now = 10
    assert watch.wait(0.0) == (driver.gpus()[0][1].identity.uuid, 48)
    assert watch.wait(0.0) is None


def test_it_is_split_and_lacks_fields_on_request() -> None:
    fake, _ = sampled(mig=3, unsupported=["fan"])
    fake.step()
    page = gpu_page(fake.report)
    assert len(values(page, "esper_gpu_mig_info")) == 6
    assert values(page, "esper_gpu_fan_speed_ratio") == []
    assert fake.report.errors == {("fan", "not_supported"): 2}
