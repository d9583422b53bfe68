"""Whatever NVML says, nothing escapes, and no number is shown that it did not say just now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_exporter.metrics.vital_rows import GPU_BLOCKS, gpu_rows
from esper_exporter.probes.gpu.driver import OWN_FIELDS, SLOW_FIELDS, WHOLE_FIELDS
from esper_exporter.probes.gpu.nvml_fields import READERS, Handle
from support.machine import NOW, Sampled
from support.nvml import (
    FIELD_IDS,
    MISSING,
    OUR_PID,
    Fails,
    ScriptedNvml,
    answers,
    field_value,
    uuid,
)
from support.pages import value

ERRORS = sorted(
    code
    for name in dir(pynvml)
    if name.startswith("NVML_ERROR_") and isinstance(code := getattr(pynvml, name), int)
)
FUNCTIONS = (
    *answers(0),
    "nvmlInit",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo",
)
OUTCOMES = st.one_of(
    st.sampled_from(ERRORS).map(Fails),
    st.just(Fails(123456)),
    st.just(MISSING),
    st.just(OSError("ctypes")),
    st.just(SimpleNamespace()),
)
SCRIPTS = st.lists(
    st.dictionaries(
        st.one_of(
            st.sampled_from(FUNCTIONS), st.tuples(st.sampled_from(FUNCTIONS), st.integers(0, 1))
        ),
        OUTCOMES,
        max_size=6,
    ),
    max_size=5,
)


def said(round_: int) -> dict[str, dict[Any, float]]:
    """What healthy GPUs say in a round, by UUID."""
    library = ScriptedNvml(2)
    library.round = round_
    report = Sampled(library, slow_every=1.0).step()
    return {sample.identity.uuid: dict(sample.cells) for sample in report.gpus}


SAID = [said(round_) for round_ in range(6)]


@settings(max_examples=100, deadline=None)
@given(SCRIPTS)
def test_nothing_escapes_and_every_number_was_said_in_the_same_pass(script: list[Any]) -> None:
    library = ScriptedNvml(2)
    sampled = Sampled(library, slow_every=1.0)
    for round_, outcomes in enumerate([*script, {}]):
        library.round, library.outcomes = round_, outcomes
        report = sampled.step(40.0)
        for sample in report.gpus:
            truth = SAID[round_].get(sample.identity.uuid, {})
            invented = {cell: v for cell, v in sample.cells.items() if truth.get(cell) != v}
            assert invented == {}
            answered = sample.answered_at is not None and sample.answered_at == sampled.clock.now
            assert answered or not sample.cells
        assert gpu_rows(report).keys() == set(GPU_BLOCKS)


@settings(max_examples=40, deadline=None)
@given(SCRIPTS)
def test_when_all_is_well_again_everything_is_back(script: list[Any]) -> None:
    library = ScriptedNvml(2)
    sampled = Sampled(library, slow_every=1.0)
    for outcomes in script:
        library.outcomes = outcomes
        sampled.step(40.0)
    if sampled.sampler.done:
        return
    library.outcomes = {}
    # The sampler retries unsupported fields at the next listing of the GPUs.
    sampled.sampler.close()
    report = sampled.step(40.0)
    shown = {sample.identity.uuid: dict(sample.cells) for sample in report.gpus}
    assert {name: shown[name] for name in SAID[0]} == SAID[0]


@pytest.mark.parametrize("field", [*WHOLE_FIELDS, *OWN_FIELDS, *SLOW_FIELDS])
def test_a_field_that_is_not_supported_loses_itself_alone(field: str) -> None:
    library = ScriptedNvml()
    (whole,) = Sampled(library, slow_every=1.0).step().gpus
    asked = []

    def refuse(gpu: Any) -> Any:
        asked.append(gpu)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    own = READERS[field](Handle(library, 0, lambda pid: pid == OUR_PID, str))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(READERS, field, refuse)
        sampled = Sampled(library, slow_every=1.0)
        for _ in range(3):
            sampled.step()
    (sample,) = sampled.report.gpus
    assert whole.cells.keys() - sample.cells.keys() == own.keys()
    assert len(asked) == 1
    assert sampled.report.errors == {(field, "not_supported"): 1}


@pytest.mark.parametrize("sentinel", [0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF])
def test_what_nvml_writes_for_not_known_is_no_number(sentinel: int) -> None:
    library = ScriptedNvml()
    for name in (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetPcieReplayCounter",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPcieThroughput",
        "nvmlDeviceGetClockInfo",
    ):
        library.outcomes[name] = sentinel
    library.outcomes["nvmlDeviceGetPerformanceState"] = 32
    library.outcomes["nvmlDeviceGetUtilizationRates"] = SimpleNamespace(gpu=sentinel, memory=1)
    library.outcomes["nvmlDeviceGetComputeRunningProcesses"] = [
        SimpleNamespace(pid=4711, usedGpuMemory=None),
        SimpleNamespace(pid=4711, usedGpuMemory=sentinel),
    ]
    library.outcomes["nvmlDeviceGetFieldValues"] = [field_value(82, sentinel)]
    sampled = Sampled(library, slow_every=1.0)
    sampled.step()
    (sample,) = sampled.report.gpus
    names = {cell[0].removeprefix("esper_gpu_") for cell in sample.cells}
    assert not names & {
        "power_watts",
        "energy_joules_total",
        "ecc_errors_total",
        "pcie_replays_total",
        "temperature_celsius",
        "memory_temperature_celsius",
        "pcie_throughput_bytes",
        "sm_clock_hertz",
        "memory_clock_hertz",
        "performance_state",
        "utilization_ratio",
        "process_memory_bytes",
    }
    assert sample.cells["esper_gpu_memory_bandwidth_utilization_ratio",] == 0.01
    assert sampled.report.errors == {}


def test_of_several_values_those_that_are_there_are_shown_and_the_others_counted_once() -> None:
    library = ScriptedNvml()
    library.outcomes["nvmlDeviceGetFieldValues"] = [
        field_value(number, 10**9, 0 if number in (74, 38) else pynvml.NVML_ERROR_NOT_SUPPORTED)
        for number in FIELD_IDS
    ]
    sampled = Sampled(library)
    sampled.step()
    sampled.step()
    (sample,) = sampled.report.gpus
    several = {cell: v for cell, v in sample.cells.items() if len(cell) == 2}
    times = "esper_gpu_throttled_seconds_total"
    assert {c: v for c, v in several.items() if c[0] == times} == {(times, "sw_power_cap"): 1.0}
    assert [c for c in several if c[0] == "esper_gpu_nvlink_errors_total"] == [
        ("esper_gpu_nvlink_errors_total", "crc_flit")
    ]
    assert sampled.report.errors == {
        (field, "not_supported"): 1
        for field in ("memory_temperature", "throttle_times", "nvlink_errors")
    }


def test_an_error_that_passes_is_counted_every_time() -> None:
    library = ScriptedNvml()
    library.outcomes["nvmlDeviceGetPowerUsage"] = Fails(pynvml.NVML_ERROR_UNKNOWN)
    sampled = Sampled(library)
    for _ in range(3):
        sampled.step()
    library.outcomes.clear()
    (sample,) = sampled.step().gpus
    assert sampled.report.errors == {("power", "unknown"): 3}
    assert sample.cells["esper_gpu_power_watts",] == 312.5


def test_an_old_binding_and_an_old_driver_give_what_they_have() -> None:
    old = ScriptedNvml(old=("nvmlDeviceGetRemappedRows", "nvmlDeviceGetCurrentClocksEventReasons"))
    old.outcomes["nvmlDeviceGetCurrentClocksThrottleReasons"] = 0x1
    first = Fails(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    old.outcomes["nvmlDeviceGetSupportedClocksEventReasons"] = first
    old.outcomes["nvmlDeviceGetSupportedClocksThrottleReasons"] = 0x3
    sampled = Sampled(old)
    (sample,) = sampled.step().gpus
    assert {cell: v for cell, v in sample.cells.items() if cell[0] == "esper_gpu_throttled"} == {
        ("esper_gpu_throttled", "gpu_idle"): 1.0,
        ("esper_gpu_throttled", "applications_clocks_setting"): 0.0,
    }
    assert sampled.report.errors == {("remapped_rows", "function_not_found"): 1}


def test_memory_is_read_in_the_old_way_where_the_new_one_is_unknown() -> None:
    library = ScriptedNvml()
    plain = library._nvmlDeviceGetMemoryInfo

    def only_old(handle: int, version: int | None = None) -> Any:
        if version is not None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return plain(handle)

    library._nvmlDeviceGetMemoryInfo = only_old  # type: ignore[method-assign]
    sampled = Sampled(library)
    (sample,) = sampled.step().gpus
    assert ("esper_gpu_memory_used_bytes",) in sample.cells
    assert ("esper_gpu_memory_reserved_bytes",) not in sample.cells


def test_a_gpu_of_which_nothing_can_be_read_has_not_answered() -> None:
    library = ScriptedNvml()
    sampled = Sampled(library)
    sampled.step()
    for name in answers(0):
        library.outcomes[name] = Fails(pynvml.NVML_ERROR_TIMEOUT)
    (sample,) = sampled.step().gpus
    assert sample.answered_at == NOW + 5
    assert sample.cells == {}


def test_what_was_used_before_the_last_reading_does_not_count_again() -> None:
    library = ScriptedNvml()
    sampled = Sampled(library)
    shares = []
    for reported in ([(1, 60), (2, 20)], [(2, 20), (3, 90)], [(3, 90)]):
        library.outcomes["nvmlDeviceGetProcessUtilization"] = [
            SimpleNamespace(pid=OUR_PID, timeStamp=stamp, smUtil=percent)
            for stamp, percent in reported
        ]
        (sample,) = sampled.step().gpus
        shares.append(sample.cells.get(("esper_gpu_process_sm_utilization_ratio",)))
    assert shares == [pytest.approx(0.4), pytest.approx(0.9), None]


def test_a_lost_gpu_is_left_alone_for_half_a_minute_and_taken_back() -> None:
    library = ScriptedNvml(2)
    sampled = Sampled(library)
    sampled.step()
    library.outcomes["nvmlDeviceGetUtilizationRates", 1] = Fails(pynvml.NVML_ERROR_GPU_IS_LOST)
    sampled.step()
    library.calls.clear()
    sampled.step(5)
    assert not [call for call in library.calls if call[1][:1] == (1,)]
    lost = next(sample for sample in sampled.report.gpus if sample.identity.uuid == uuid(1))
    assert lost.cells == {}
    assert lost.answered_at == NOW + 5
    library.outcomes.clear()
    sampled.step(31)
    back = next(sample for sample in sampled.report.gpus if sample.identity.uuid == uuid(1))
    assert back.answered_at == sampled.clock.now
    assert back.cells


@pytest.mark.parametrize(
    "error",
    ["UNINITIALIZED", "DRIVER_NOT_LOADED", "LIB_RM_VERSION_MISMATCH"],
)
def test_a_driver_that_is_replaced_is_opened_again(error: str) -> None:
    library = ScriptedNvml(2)
    sampled = Sampled(library)
    sampled.step()
    library.outcomes["nvmlDeviceGetUtilizationRates"] = Fails(
        getattr(pynvml, f"NVML_ERROR_{error}")
    )
    report = sampled.step()
    assert report.present is False
    assert [sample.cells for sample in report.gpus] == [{}, {}]
    assert [sample.answered_at for sample in report.gpus] == [NOW + 5] * 2
    assert report.errors == {("driver", error.lower()): 1}
    assert library.opened == 0
    library.outcomes.clear()
    assert sampled.step(5).present is False
    report = sampled.step(30)
    assert report.present is True
    assert library.opened == 1
    assert all(sample.answered_at == sampled.clock.now for sample in report.gpus)


@pytest.mark.parametrize(
    ("outcome", "for_good"),
    [
        (Fails(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), True),
        (Fails(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), False),
        (Fails(pynvml.NVML_ERROR_NO_PERMISSION), False),
        (ImportError("no module"), True),
    ],
)
def test_without_a_driver_there_is_one_line_and_a_zero(
    outcome: Any, for_good: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esper_exporter")
    library = ScriptedNvml()
    library.outcomes["nvmlInit"] = outcome
    sampled = Sampled(library)
    if isinstance(outcome, ImportError):

        def load() -> Any:
            raise outcome

        sampled.sampler._driver._load = load  # type: ignore[attr-defined]
    for _ in range(3):
        sampled.step(40)
    samples = [line for line in sampled.page.splitlines() if not line.startswith("#")]
    assert samples == ["esper_gpu_present 0.0"]
    assert len(caplog.records) == 1
    assert "no GPU vitals" in caplog.text
    assert sampled.sampler.done is for_good


@pytest.mark.parametrize(("error", "present"), [("NO_PERMISSION", 0.0), ("GPU_IS_LOST", 1.0)])
def test_a_gpu_that_may_not_be_used_is_none_and_one_off_the_bus_is_one(
    error: str, present: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esper_exporter")
    library = ScriptedNvml(1)
    refused = Fails(getattr(pynvml, f"NVML_ERROR_{error}"))
    library.outcomes["nvmlDeviceGetHandleByIndex"] = refused
    sampled = Sampled(library)
    sampled.step()
    assert value(sampled.page, "esper_gpu_present") == present
    assert sampled.report.errors == {("list", error.lower()): 1}
    assert ("no_permission" in caplog.text) is (present == 0)
    library.outcomes.clear()
    assert sampled.step(31).gpus[0].cells


def test_with_a_mig_share_alone_it_reads_nothing_of_the_whole_gpu() -> None:
    library = ScriptedNvml(2)
    sampled = Sampled(library, whole=False)
    library.calls.clear()
    report = sampled.step()
    asked = {name for name, _ in library.calls}
    assert report.present is None
    assert not asked & {"nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMigMode"}
    names = {line.split("{")[0] for line in sampled.page.splitlines() if line[0] != "#"}
    assert names == {"esper_gpu_process_memory_bytes", "esper_gpu_process_sm_utilization_ratio"}


def test_slow_fields_are_read_only_on_request_and_rarely() -> None:
    for every, asked in ((0.0, 0), (60.0, 2)):
        library = ScriptedNvml()
        sampled = Sampled(library, slow_every=every)
        for _ in range(13):
            sampled.step(5)
        count = sum(name == "nvmlDeviceGetPcieThroughput" for name, _ in library.calls)
        assert count == 2 * asked
        assert ("esper_gpu_pcie_throughput_bytes" in sampled.page) is bool(asked)
