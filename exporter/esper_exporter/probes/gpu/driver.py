"""The GPU and driver protocols that the sampler uses; NVML and a fake implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esper_exporter.probes.samples import Cells

WHOLE_FIELDS = (
    "utilization",
    "memory",
    "temperature",
    "memory_temperature",
    "power",
    "power_limit",
    "energy",
    "sm_clock",
    "sm_clock_max",
    "memory_clock",
    "memory_clock_max",
    "throttle_reasons",
    "throttle_times",
    "performance_state",
    "fan",
    "pcie_generation",
    "pcie_width",
    "pcie_replays",
    "nvlink_errors",
    "ecc_corrected_volatile",
    "ecc_uncorrected_volatile",
    "ecc_corrected_aggregate",
    "ecc_uncorrected_aggregate",
    "retired_pages_single_bit",
    "retired_pages_double_bit",
    "remapped_rows",
)
"""The fields of a whole GPU. One call each, so that one failure loses one field."""

OWN_FIELDS = ("process_memory", "process_utilization")
"""The fields of the training's share of a GPU."""

SLOW_FIELDS = ("pcie_throughput",)
"""The fields that take tens of milliseconds per GPU; read only on request."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies a GPU: the driver's index, UUID, model, and PCI bus id."""

    gpu: str
    uuid: str
    name: str
    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a GPU that acts as a GPU; memory in bytes, None where unknown."""

    mig: str
    uuid: str
    name: str
    gpu_instance_id: str
    compute_instance_id: str
    memory_used: int | None = None
    memory_total: int | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of the driver and of the newest CUDA it supports; empty where unknown."""

    driver: str = ""
    cuda: str = ""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A GPU under its CUDA ordinal in this process, which depends on CUDA_VISIBLE_DEVICES.
    ``holds_memory``: torch's allocator has memory on it."""

    ordinal: int
    uuid: str
    pci_bus_id: str
    holds_memory: bool


class ReadError(Exception):
    """Reading a field failed, wholly or in part: ``error`` is the reason, from a fixed vocabulary;
    ``cells`` are the values that were read all the same."""

    def __init__(self, error: str, cells: Cells | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.cells: Cells = cells or {}


class GpuLost(ReadError):
    """The GPU no longer answers: it fell off the bus."""


class DriverGone(ReadError):
    """The driver was unloaded or replaced while in use. Open it again."""


class NoDriver(Exception):
    """No driver is available; with ``for_good``, none will be in this process's lifetime."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Gpu(Protocol):
    """One GPU. A call may take any time, and may never return."""

    @property
    def identity(self) -> Identity: ...

    def read(self, field: str) -> Cells:
        """Read a field's values, by the metrics of `metrics.families.gpu_metrics` that show them;
        empty where the GPU reports "not known". Raises ReadError, with ``not_supported`` for a
        field that the GPU lacks."""
        ...

    def instances(self) -> Sequence[MigInstance]:
        """The GPU's MIG instances; empty when MIG is off. Raises ReadError."""
        ...


class XidWatch(Protocol):
    """Waits for the driver to report errors."""

    @property
    def watched(self) -> Sequence[Identity]:
        """The GPUs whose errors the driver reports."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """UUID → error for each GPU whose errors the driver cannot report."""
        ...

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """The next error as UUID and code (XID); None after ``seconds`` without one. Raises
        ReadError."""
        ...

    def close(self) -> None: ...


class Driver(Protocol):
    """The driver of all GPUs of the machine. Two threads of the exporter use it: one samples, one
    waits for XIDs."""

    @property
    def source(self) -> str:
        """``nvml``, or ``fake`` for simulated GPUs."""
        ...

    def open(self) -> None:
        """Start using the driver. Raises NoDriver."""
        ...

    def close(self) -> None:
        """Stop using the driver; harmless when it is not open."""
        ...

    def versions(self) -> Versions: ...

    def gpus(self) -> tuple[Sequence[Gpu], Sequence[str]]:
        """The GPUs present now, and the error of each listed GPU that does not answer. Raises
        ReadError."""
        ...

    def watch(self) -> XidWatch:
        """Start watching all GPUs present now for errors. Raises ReadError."""
        ...

    def cuda_devices(self) -> Sequence[CudaDevice]:
        """The GPUs that this process uses through CUDA; empty before it initialises CUDA."""
        ...
