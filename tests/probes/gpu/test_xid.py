"""XIDs: each is counted, repeats too, whatever happens to the driver in between."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from esper_exporter.probes.gpu.gpu_report import XidReport
from esper_exporter.probes.gpu.nvml import Nvml
from esper_exporter.probes.gpu.xid import HARDWARE_XIDS, MOST_CODES, RETRY_SECONDS, XidWatcher
from support.machine import Clock
from support.nvml import Fails, ScriptedNvml, uuid, xid


class Watched:
    """A watcher over a scripted NVML, and its last report."""

    def __init__(self, library: ScriptedNvml) -> None:
        self.clock = Clock(1000.0)
        self.reports = [XidReport()]
        self.watcher = XidWatcher(Nvml(lambda: library), self.reports.append, clock=self.clock)

    def steps(self, count: int) -> list[float]:
        pauses = []
        for _ in range(count):
            self.clock.now += 1
            pauses.append(self.watcher.step())
        return pauses

    @property
    def report(self) -> XidReport:
        return self.reports[-1]


def key(index: int, code: int) -> tuple[str, str, str]:
    return (str(index), uuid(index), str(code))


def test_the_codes_of_broken_hardware_are_there_before_anything_happens() -> None:
    watched = Watched(ScriptedNvml(2))
    assert watched.steps(2) == [0.0, 0.0]
    assert watched.report.counts == {
        key(index, code): 0 for index in (0, 1) for code in HARDWARE_XIDS
    }
    assert watched.report.last == {}


def test_each_error_is_counted_with_its_time_a_repeat_too() -> None:
    library = ScriptedNvml(2)
    library.events = [xid(0, 79), xid(1, 31), Fails(pynvml.NVML_ERROR_TIMEOUT), xid(1, 31)]
    watched = Watched(library)
    watched.steps(4)
    assert watched.report.counts[key(0, 79)] == 1
    assert watched.report.counts[key(1, 31)] == 2
    assert watched.report.last == {key(0, 79): 1001.0, key(1, 31): 1004.0}


def test_an_event_of_another_kind_is_none() -> None:
    library = ScriptedNvml()
    library.events = [SimpleNamespace(device=0, eventType=1, eventData=48)]
    watched = Watched(library)
    watched.steps(1)
    assert not any(watched.report.counts.values())


def test_endless_codes_are_no_endless_series() -> None:
    library = ScriptedNvml()
    library.events = [xid(0, code) for code in range(500, 700)]
    watched = Watched(library)
    watched.steps(200)
    assert len(watched.report.counts) == MOST_CODES + 1
    assert sum(watched.report.counts.values()) == 200


def test_after_an_error_of_the_driver_it_watches_again_and_forgets_nothing() -> None:
    library = ScriptedNvml()
    library.events = [xid(0, 48), Fails(pynvml.NVML_ERROR_UNINITIALIZED), xid(0, 48)]
    watched = Watched(library)
    assert watched.steps(3) == [0.0, RETRY_SECONDS, 0.0]
    assert watched.report.counts[key(0, 48)] == 2
    assert watched.report.errors == {("xid", "uninitialized"): 1}
    assert library.opened == 1


def test_a_gpu_that_refuses_costs_only_itself() -> None:
    library = ScriptedNvml(2)
    library.outcomes["nvmlDeviceRegisterEvents", 0] = Fails(pynvml.NVML_ERROR_NO_PERMISSION)
    library.events = [xid(1, 48)]
    watched = Watched(library)
    watched.steps(2)
    assert watched.report.counts[key(1, 48)] == 1
    assert not any(gpu == "0" for gpu, _, _ in watched.report.counts)
    assert watched.report.errors == {("xid", "no_permission"): 1}


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_reporting_process_the_page_shows_nothing(count: int) -> None:
    library = ScriptedNvml(count)
    library.outcomes["nvmlDeviceGetSupportedEventTypes"] = 0
    watched = Watched(library)
    assert watched.steps(3) == [RETRY_SECONDS] * 3
    assert watched.report.counts == {}
    assert watched.report.errors == ({("xid", "not_supported"): 1} if count else {})


def test_a_gpu_that_fell_off_the_bus_is_known_by_being_the_only_one() -> None:
    library = ScriptedNvml()
    watched = Watched(library)
    watched.steps(1)
    library.events = [xid(0, 79)]
    library.outcomes["nvmlDeviceGetUUID"] = Fails(pynvml.NVML_ERROR_GPU_IS_LOST)
    watched.steps(1)
    assert watched.report.counts[key(0, 79)] == 1


def test_without_a_driver_it_ends() -> None:
    library = ScriptedNvml()
    library.outcomes["nvmlInit"] = Fails(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    watched = Watched(library)
    watched.steps(1)
    assert watched.watcher.done
