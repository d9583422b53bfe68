"""Simulated GPUs for demos and tests, marked by ``esper_gpu_info{source="fake"}``.

``Exporter(gpu_driver=FakeDriver(2))`` is all that a demo needs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from esper_exporter.health import MEMORY_CRITICAL
from esper_exporter.probes.gpu.driver import (
    CudaDevice,
    GpuLost,
    Identity,
    MigInstance,
    ReadError,
    Versions,
)
from esper_exporter.probes.gpu.gpu_vocabulary import NVLINK_ERRORS, THROTTLE_REASONS, TIMED_REASONS
from esper_exporter.probes.samples import Cells

GIB = float(1024**3)
TOTAL = 80 * GIB
RESERVED = 0.5 * GIB
IDLE_WATTS, BUSY_WATTS, LIMIT_WATTS = 70.0, 600.0, 700.0
COOL, WARM, HOT = 34.0, 68.0, 93.0
PERIOD_SECONDS = 60.0
MIG_SHARE = 7


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a GPU, so many seconds after the driver's construction.

    ``hot``: the GPU overheats and is throttled until ``until``. ``lost``: it is off the bus until
    ``until``. ``xid``: the driver reports an error with ``code``, once.
    """

    kind: Literal["hot", "lost", "xid"]
    gpu: int = 0
    at: float = 0.0
    until: float = math.inf
    code: int = 79

    def lasts(self, gpu: int, now: float) -> bool:
        """Whether a GPU has the fault now."""
        return self.gpu == gpu and self.at <= now < self.until


class FakeDriver:
    """A driver with ``count`` GPUs under a varying load. ``clock`` is in seconds.

    Each GPU is split into ``mig`` instances and lacks the fields ``unsupported``. ``in_use``: the
    training seems to use all of them through CUDA, in the same order. Thread-safe.
    """

    source = "fake"

    def __init__(
        self,
        count: int = 2,
        *,
        mig: int = 0,
        unsupported: Sequence[str] = (),
        faults: Sequence[Fault] = (),
        in_use: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._begun = clock()
        self._faults = tuple(faults)
        self._in_use = in_use
        self._gpus = [
            FakeGpu(index, self._now, self._faults, mig, frozenset(unsupported))
            for index in range(count)
        ]

    def _now(self) -> float:
        return self._clock() - self._begun

    def open(self) -> None: ...

    def close(self) -> None: ...

    def versions(self) -> Versions:
        return Versions("580.00", "13.0")

    def gpus(self) -> tuple[list[FakeGpu], list[str]]:
        return self._gpus, []

    def watch(self) -> FakeWatch:
        return FakeWatch(
            [gpu.identity for gpu in self._gpus],
            [fault for fault in self._faults if fault.kind == "xid"],
            self._now,
        )

    def cuda_devices(self) -> list[CudaDevice]:
        return [
            CudaDevice(index, gpu.identity.uuid, gpu.identity.pci_bus_id, True)
            for index, gpu in enumerate(self._gpus)
            if self._in_use
        ]


class FakeGpu:
    """A simulated GPU: its values depend on the time only."""

    def __init__(
        self,
        index: int,
        now: Callable[[], float],
        faults: Sequence[Fault],
        mig: int,
        unsupported: frozenset[str],
    ) -> None:
        self.identity = Identity(
            str(index),
            f"GPU-00000000-0000-0000-0000-{index:012d}",
            "Simulated GPU",
            f"00000000:{index + 1:02x}:00.0",
        )
        self._index = index
        self._now = now
        self._faults = faults
        self._mig = mig
        self._unsupported = unsupported

    def _has(self, kind: str) -> bool:
        now = self._now()
        return any(f.kind == kind and f.lasts(self._index, now) for f in self._faults)

    def read(self, field: str) -> Cells:
        """A field's current values."""
        if self._has("lost"):
            raise GpuLost("gpu_is_lost")
        if field in self._unsupported or field not in READERS:
            raise ReadError("not_supported")
        return READERS[field](State(self._now(), self._index, self._has("hot")))

    def instances(self) -> list[MigInstance]:
        """The MIG instances, with a seventh of the memory each."""
        if self._has("lost"):
            raise GpuLost("gpu_is_lost")
        share = int(TOTAL / MIG_SHARE)
        return [
            MigInstance(
                str(number),
                f"MIG-00000000-0000-0000-{self._index:04d}-{number:012d}",
                "Simulated GPU MIG 1g.10gb",
                str(number + 7),
                "0",
                share // 4,
                share,
            )
            for number in range(self._mig)
        ]


class FakeWatch:
    """Reports each planned error once."""

    refused: Mapping[str, str]

    def __init__(
        self, watched: Sequence[Identity], planned: Sequence[Fault], now: Callable[[], float]
    ) -> None:
        self.watched = watched
        self.refused = {}
        self._planned = sorted(planned, key=lambda fault: fault.at)
        self._now = now
        self._closed = threading.Event()

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """The next error, once it is due."""
        left = self._planned[0].at - self._now() if self._planned else math.inf
        if left > 0:
            self._closed.wait(min(seconds, left))
        if self._planned and self._planned[0].at <= self._now():
            fault = self._planned.pop(0)
            return self.watched[fault.gpu].uuid, fault.code
        return None

    def close(self) -> None:
        """End a wait in progress."""
        self._closed.set()


@dataclass(frozen=True, slots=True)
class State:
    """The simulated state behind a GPU's values."""

    now: float
    index: int
    hot: bool

    @property
    def load(self) -> float:
        """0 to 1: busy for most of a period, each GPU a little later than the previous one."""
        wave = math.sin(2 * math.pi * self.now / PERIOD_SECONDS - self.index)
        return min(1.0, max(0.0, 0.7 + 0.5 * wave)) * (0.4 if self.hot else 1.0)

    @property
    def used(self) -> float:
        """Used memory in bytes: fills up within some minutes."""
        return float(int(GIB * (4 + 30 * (1 - math.exp(-self.now / 120)) + 2 * self.index)))

    @property
    def temperature(self) -> float:
        return HOT if self.hot else round(COOL + (WARM - COOL) * self.load)

    @property
    def watts(self) -> float:
        return IDLE_WATTS + (BUSY_WATTS - IDLE_WATTS) * self.load


def _throttled(state: State) -> Cells:
    holding = {"hw_slowdown", "hw_thermal_slowdown"} if state.hot else set()
    if state.load == 0:
        holding.add("gpu_idle")
    return {("esper_gpu_throttled", each): float(each in holding) for each in THROTTLE_REASONS}


def _memory(state: State) -> Cells:
    return {
        ("esper_gpu_memory_used_bytes",): state.used,
        ("esper_gpu_memory_free_bytes",): TOTAL - RESERVED - state.used,
        ("esper_gpu_memory_total_bytes",): TOTAL,
        ("esper_gpu_memory_reserved_bytes",): RESERVED,
        ("esper_gpu_memory_alarm",): float(state.used / TOTAL > MEMORY_CRITICAL),
    }


def _constant(name: str, value: float, *labels: str) -> Callable[[State], Cells]:
    return lambda _state: {(f"esper_gpu_{name}", *labels): value}


def _of(name: str, value: Callable[[State], float]) -> Callable[[State], Cells]:
    return lambda state: {(f"esper_gpu_{name}",): value(state)}


READERS: dict[str, Callable[[State], Cells]] = {
    "utilization": lambda state: {
        ("esper_gpu_utilization_ratio",): round(state.load, 2),
        ("esper_gpu_memory_bandwidth_utilization_ratio",): round(0.6 * state.load, 2),
    },
    "memory": _memory,
    "temperature": _of("temperature_celsius", lambda state: state.temperature),
    "memory_temperature": _of("memory_temperature_celsius", lambda state: state.temperature + 8),
    "power": _of("power_watts", lambda state: round(state.watts, 3)),
    "power_limit": _constant("power_limit_watts", LIMIT_WATTS),
    "energy": _of("energy_joules_total", lambda state: round(450.0 * state.now, 3)),
    "sm_clock": _of("sm_clock_hertz", lambda state: 1.98e9 if not state.hot else 0.9e9),
    "sm_clock_max": _constant("sm_clock_max_hertz", 1.98e9),
    "memory_clock": _constant("memory_clock_hertz", 2.619e9),
    "memory_clock_max": _constant("memory_clock_max_hertz", 2.619e9),
    "throttle_reasons": _throttled,
    "throttle_times": lambda _state: {
        ("esper_gpu_throttled_seconds_total", reason): 0.0 for reason in TIMED_REASONS
    },
    "performance_state": _constant("performance_state", 0.0),
    "fan": _of("fan_speed_ratio", lambda state: round(0.3 + 0.5 * state.load, 2)),
    "pcie_generation": _constant("pcie_generation", 5.0),
    "pcie_width": _constant("pcie_width", 16.0),
    "pcie_replays": _constant("pcie_replays_total", 0.0),
    "pcie_throughput": lambda state: {
        ("esper_gpu_pcie_throughput_bytes", "transmit"): round(2e8 * state.load),
        ("esper_gpu_pcie_throughput_bytes", "receive"): round(3e9 * state.load),
    },
    "nvlink_errors": lambda _state: {
        ("esper_gpu_nvlink_errors_total", kind): 0.0 for kind in NVLINK_ERRORS
    },
    **{
        f"ecc_{kind}_{scope}": _constant("ecc_errors_total", 0.0, kind, scope)
        for kind in ("corrected", "uncorrected")
        for scope in ("volatile", "aggregate")
    },
    **{
        f"retired_pages_{cause}": _constant("retired_pages", 0.0, cause)
        for cause in ("single_bit", "double_bit")
    },
    "remapped_rows": lambda _state: {
        ("esper_gpu_remapped_rows", "corrected"): 0.0,
        ("esper_gpu_remapped_rows", "uncorrected"): 0.0,
        ("esper_gpu_row_remap_pending",): 0.0,
        ("esper_gpu_row_remap_failed",): 0.0,
    },
    "process_memory": _of("process_memory_bytes", lambda state: state.used - GIB),
    "process_utilization": _of(
        "process_sm_utilization_ratio", lambda state: round(0.95 * state.load, 2)
    ),
}
