"""What a GPU and its driver are to the sampler, whoever stands behind them: NVML or a fake."""

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
"""What is read of a GPU as a whole. One call each, so that one failure loses one field."""

OWN_FIELDS = ("process_memory", "process_utilization")
"""What is read of the training's own share of a GPU."""

SLOW_FIELDS = ("pcie_throughput",)
"""What takes tens of milliseconds a GPU, and is read only when asked for."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which GPU it is: the driver's index, UUID, model, and place on the PCI bus."""

    gpu: str
    uuid: str
    name: str
    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a GPU that stands for a GPU; memory in bytes, None where it is not told."""

    mig: str
    uuid: str
    name: str
    gpu_instance_id: str
    compute_instance_id: str
    memory_used: int | None = None
    memory_total: int | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of the driver and of the newest CUDA it can do; empty where not told."""

    driver: str = ""
    cuda: str = ""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A GPU under the number that CUDA gives it in this process, which CUDA_VISIBLE_DEVICES
    chooses. ``holds_memory``: torch's allocator has memory there."""

    ordinal: int
    uuid: str
    pci_bus_id: str
    holds_memory: bool


class ReadError(Exception):
    """A field could not be read, or not all of it: ``error`` names why, from a fixed vocabulary;
    ``cells`` is what could be read all the same."""

    def __init__(self, error: str, cells: Cells | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.cells: Cells = cells or {}


class GpuLost(ReadError):
    """The GPU does not answer any more: it fell off the bus."""


class DriverGone(ReadError):
    """The driver went away under us: it was unloaded or replaced. Open it again."""


class NoDriver(Exception):
    """There is no driver to ask. ``for_good``: nor will there be one in this process' life."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Gpu(Protocol):
    """One GPU. A call may take as long as it likes, and may never return."""

    @property
    def identity(self) -> Identity: ...

    def read(self, field: str) -> Cells:
        """The numbers of a field; none for what the GPU says it does not know. Raises ReadError,
        ``not_supported`` for what it cannot tell."""
        ...

    def instances(self) -> Sequence[MigInstance]:
        """Its MIG instances; none when it is not split. Raises ReadError."""
        ...


class XidWatch(Protocol):
    """Waits for the driver to tell of errors."""

    @property
    def watched(self) -> Sequence[Identity]:
        """The GPUs whose errors are told."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """UUID → error of each GPU whose errors are not."""
        ...

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """The next error, as UUID and code (XID); None when there was none for so long. Raises
        ReadError."""
        ...

    def close(self) -> None: ...


class Driver(Protocol):
    """The driver of all GPUs of the machine. One that is given to an exporter is used by two of its
    threads: one samples, one watches."""

    @property
    def source(self) -> str:
        """``nvml``, or ``fake`` when the numbers are made up."""
        ...

    def open(self) -> None:
        """Begin to use it. Raises NoDriver."""
        ...

    def close(self) -> None:
        """Use it no more; harmless when it is not open."""
        ...

    def versions(self) -> Versions: ...

    def gpus(self) -> tuple[Sequence[Gpu], Sequence[str]]:
        """The GPUs there are now, and the error of each that is listed and does not answer. Raises
        ReadError."""
        ...

    def watch(self) -> XidWatch:
        """Begin to wait for errors of all GPUs there are now. Raises ReadError."""
        ...

    def cuda_devices(self) -> Sequence[CudaDevice]:
        """The GPUs that this process uses through CUDA; none while it has not begun to."""
        ...
