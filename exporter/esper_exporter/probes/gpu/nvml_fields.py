"""Read each field through NVML, in base units.

NVML's "not known" (all bits set) becomes no sample. Sources: NVML API reference; constants from
`nvml.h` for which an older nvidia-ml-py has no name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from esper_exporter.health import MEMORY_CRITICAL
from esper_exporter.probes.gpu.driver import ReadError
from esper_exporter.probes.gpu.gpu_vocabulary import THROTTLE_REASONS
from esper_exporter.probes.samples import Cells

UNKNOWN = frozenset({0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF})
MEGA = 1e6
MILLI = 1e-3
NANO = 1e-9
PERCENT = 0.01
KILO = 1000.0

CLOCK_SM, CLOCK_MEMORY = 1, 2
PCIE_TRANSMIT, PCIE_RECEIVE = 0, 1
WORST_STATE = 15
MEMORY_V2 = 0x0200_0028

MEMORY_TEMPERATURE = 82
THROTTLE_TIMES = {
    74: "sw_power_cap",
    76: "sync_boost",
    77: "board_limit",
    79: "reliability",
    269: "sw_thermal_slowdown",
    270: "hw_thermal_slowdown",
    271: "hw_power_brake_slowdown",
}
NVLINK_ERRORS = {38: "crc_flit", 45: "crc_data", 52: "replay", 59: "recovery"}

_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The union member that holds a field's value, by type."""


def known(value: Any) -> Any:
    """The number, or None for NVML's "not known"."""
    return None if value is None or value in UNKNOWN else value


class Handle:
    """A GPU's handle, and the state kept between two readings."""

    def __init__(
        self, library: Any, handle: Any, ours: Callable[[int], bool], code: Callable[[int], str]
    ) -> None:
        self.library = library
        self.handle = handle
        self.ours = ours
        self.code = code
        self.seen_until = 0
        self.reasons: int | None = None

    def ask(self, *names: str, with_: tuple[Any, ...] = ()) -> Any:
        """Call the first of these functions that binding and driver support. Raises that call's
        errors, and AttributeError where no function exists."""
        for name in names:
            function = getattr(self.library, name, None)
            if function is None:
                continue
            try:
                return function(self.handle, *with_)
            except self.library.NVMLError as failed:
                missing = self.code(getattr(failed, "value", -1)) in MISSING
                if not missing or name == names[-1]:
                    raise
        raise AttributeError(" or ".join(names))

    def fields(self, ids: Iterable[int]) -> tuple[dict[int, float], str | None]:
        """Values by field id, and the error of one field that failed; the call itself succeeds."""
        wanted = list(ids)
        found: dict[int, float] = {}
        error = None
        for result in self.library.nvmlDeviceGetFieldValues(self.handle, wanted):
            if result.nvmlReturn != 0:
                error = self.code(result.nvmlReturn)
            elif not 0 <= result.valueType < len(_VALUES):
                error = "unknown"
            elif (value := known(getattr(result.value, _VALUES[result.valueType]))) is not None:
                found[result.fieldId] = value
        return found, error


MISSING = frozenset({"function_not_found", "argument_version_mismatch"})


def _cells(found: Mapping[tuple[str, ...], Any]) -> Cells:
    return {cell: float(value) for cell, value in found.items() if value is not None}


def _one(name: str, value: Any, scale: float = 1.0) -> Cells:
    number = known(value)
    return {} if number is None else {(f"esper_gpu_{name}",): number * scale}


def _simple(name: str, function: str, *more: Any, scale: float = 1.0) -> Callable[[Handle], Cells]:
    return lambda gpu: _one(name, gpu.ask(function, with_=more), scale)


def _utilization(gpu: Handle) -> Cells:
    rates = gpu.ask("nvmlDeviceGetUtilizationRates")
    return {
        **_one("utilization_ratio", rates.gpu, PERCENT),
        **_one("memory_bandwidth_utilization_ratio", rates.memory, PERCENT),
    }


def _memory(gpu: Handle) -> Cells:
    """Version 2 separates used memory from that reserved by the driver; version 1 does not."""
    library = gpu.library
    version = getattr(library, "nvmlMemory_v2", MEMORY_V2)
    try:
        memory = library.nvmlDeviceGetMemoryInfo(gpu.handle, version=version)
        reserved = _one("memory_reserved_bytes", memory.reserved)
    except TypeError:
        memory, reserved = library.nvmlDeviceGetMemoryInfo(gpu.handle), {}
    except library.NVMLError as failed:
        if gpu.code(getattr(failed, "value", -1)) not in MISSING:
            raise
        memory, reserved = library.nvmlDeviceGetMemoryInfo(gpu.handle), {}
    used, total = known(memory.used), known(memory.total)
    alarm: Cells = {}
    if used is not None and total:
        alarm = {("esper_gpu_memory_alarm",): float(used / total > MEMORY_CRITICAL)}
    return {
        **_one("memory_used_bytes", used),
        **_one("memory_free_bytes", memory.free),
        **_one("memory_total_bytes", total),
        **reserved,
        **alarm,
    }


def _temperature(gpu: Handle) -> Cells:
    sensor = 0
    names = ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")
    return _one("temperature_celsius", gpu.ask(*names, with_=(sensor,)))


def _memory_temperature(gpu: Handle) -> Cells:
    found, error = gpu.fields([MEMORY_TEMPERATURE])
    if error is not None:
        raise ReadError(error)
    return _one("memory_temperature_celsius", found.get(MEMORY_TEMPERATURE))


def _by_id(name: str, ids: Mapping[int, str], scale: float = 1.0) -> Callable[[Handle], Cells]:
    def read(gpu: Handle) -> Cells:
        found, error = gpu.fields(ids)
        cells: Cells = {
            (f"esper_gpu_{name}", ids[number]): value * scale
            for number, value in found.items()
            if number in ids
        }
        if error is not None:
            raise ReadError(error, cells)
        return cells

    return read


def _throttle_reasons(gpu: Handle) -> Cells:
    if gpu.reasons is None:
        gpu.reasons = gpu.ask(
            "nvmlDeviceGetSupportedClocksEventReasons",
            "nvmlDeviceGetSupportedClocksThrottleReasons",
        )
    now = gpu.ask(
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
    )
    return {
        ("esper_gpu_throttled", reason): float(now >> bit & 1)
        for bit, reason in enumerate(THROTTLE_REASONS)
        if gpu.reasons >> bit & 1
    }


def _performance_state(gpu: Handle) -> Cells:
    state = gpu.ask("nvmlDeviceGetPerformanceState")
    return _one("performance_state", state) if 0 <= state <= WORST_STATE else {}


def _pcie_throughput(gpu: Handle) -> Cells:
    cells: dict[tuple[str, ...], float] = {}
    for direction, counter in (("transmit", PCIE_TRANSMIT), ("receive", PCIE_RECEIVE)):
        value = known(gpu.ask("nvmlDeviceGetPcieThroughput", with_=(counter,)))
        if value is not None:
            cells["esper_gpu_pcie_throughput_bytes", direction] = value * KILO
    return cells


def _ecc(kind: str, scope: str) -> Callable[[Handle], Cells]:
    asked = (("corrected", "uncorrected").index(kind), ("volatile", "aggregate").index(scope))

    def read(gpu: Handle) -> Cells:
        count = known(gpu.ask("nvmlDeviceGetTotalEccErrors", with_=asked))
        return _cells({("esper_gpu_ecc_errors_total", kind, scope): count})

    return read


def _retired_pages(cause: str) -> Callable[[Handle], Cells]:
    asked = ("single_bit", "double_bit").index(cause)

    def read(gpu: Handle) -> Cells:
        pages = gpu.ask("nvmlDeviceGetRetiredPages", with_=(asked,))
        return {("esper_gpu_retired_pages", cause): float(len(pages))}

    return read


def _remapped_rows(gpu: Handle) -> Cells:
    corrected, uncorrected, pending, failed = gpu.ask("nvmlDeviceGetRemappedRows")
    return _cells(
        {
            ("esper_gpu_remapped_rows", "corrected"): known(corrected),
            ("esper_gpu_remapped_rows", "uncorrected"): known(uncorrected),
            ("esper_gpu_row_remap_pending",): known(pending),
            ("esper_gpu_row_remap_failed",): known(failed),
        }
    )


def _process_memory(gpu: Handle) -> Cells:
    """Absent unless the driver lists a process of this training; in a container it may not."""
    processes = gpu.ask("nvmlDeviceGetComputeRunningProcesses")
    used = [known(each.usedGpuMemory) for each in processes if gpu.ours(each.pid)]
    known_sizes = [memory for memory in used if memory is not None]
    return {("esper_gpu_process_memory_bytes",): float(sum(known_sizes))} if known_sizes else {}


def _process_utilization(gpu: Handle) -> Cells:
    """Mean of the driver's samples since the last reading, over this training's processes."""
    try:
        samples = gpu.ask("nvmlDeviceGetProcessUtilization", with_=(gpu.seen_until,))
    except gpu.library.NVMLError as failed:
        # Nothing ran: an error, which the binding reports as the error "success".
        value = getattr(failed, "value", -1)
        if value == 0 or gpu.code(value) == "not_found":
            return {}
        raise
    by_process: dict[int, list[float]] = {}
    for each in samples:
        if each.timeStamp > gpu.seen_until and known(each.smUtil) is not None:
            by_process.setdefault(each.pid, []).append(each.smUtil * PERCENT)
    gpu.seen_until = max([gpu.seen_until, *(each.timeStamp for each in samples)])
    ours = [sum(shares) / len(shares) for pid, shares in by_process.items() if gpu.ours(pid)]
    return {("esper_gpu_process_sm_utilization_ratio",): sum(ours)} if ours else {}


READERS: dict[str, Callable[[Handle], Cells]] = {
    "utilization": _utilization,
    "memory": _memory,
    "temperature": _temperature,
    "memory_temperature": _memory_temperature,
    "power": _simple("power_watts", "nvmlDeviceGetPowerUsage", scale=MILLI),
    "power_limit": _simple("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", scale=MILLI),
    "energy": _simple("energy_joules_total", "nvmlDeviceGetTotalEnergyConsumption", scale=MILLI),
    "sm_clock": _simple("sm_clock_hertz", "nvmlDeviceGetClockInfo", CLOCK_SM, scale=MEGA),
    "sm_clock_max": _simple(
        "sm_clock_max_hertz", "nvmlDeviceGetMaxClockInfo", CLOCK_SM, scale=MEGA
    ),
    "memory_clock": _simple(
        "memory_clock_hertz", "nvmlDeviceGetClockInfo", CLOCK_MEMORY, scale=MEGA
    ),
    "memory_clock_max": _simple(
        "memory_clock_max_hertz", "nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY, scale=MEGA
    ),
    "throttle_reasons": _throttle_reasons,
    "throttle_times": _by_id("throttled_seconds_total", THROTTLE_TIMES, NANO),
    "performance_state": _performance_state,
    "fan": _simple("fan_speed_ratio", "nvmlDeviceGetFanSpeed", scale=PERCENT),
    "pcie_generation": _simple("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
    "pcie_width": _simple("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth"),
    "pcie_replays": _simple("pcie_replays_total", "nvmlDeviceGetPcieReplayCounter"),
    "pcie_throughput": _pcie_throughput,
    "nvlink_errors": _by_id("nvlink_errors_total", NVLINK_ERRORS),
    **{
        f"ecc_{kind}_{scope}": _ecc(kind, scope)
        for kind in ("corrected", "uncorrected")
        for scope in ("volatile", "aggregate")
    },
    **{f"retired_pages_{cause}": _retired_pages(cause) for cause in ("single_bit", "double_bit")},
    "remapped_rows": _remapped_rows,
    "process_memory": _process_memory,
    "process_utilization": _process_utilization,
}
