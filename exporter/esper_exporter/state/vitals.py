"""The machine as the trainer sees it (Sanctum schema: SystemVitals, GPUStats)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from esper_exporter.contract.unexported import VITALS, WALL_CLOCK, Unexported
from esper_exporter.health import MEMORY_CRITICAL


@dataclass
class GPUStats:
    """One GPU: memory in GiB, utilisation in percent, temperature in degrees Celsius."""

    device_id: int = 0
    memory_used_gb: float = 0.0
    memory_total_gb: float = 0.0
    utilization: float = 0.0
    temperature: float = 0.0


def _full(used: float | None, total: float | None) -> bool:
    return used is not None and total is not None and total > 0 and (used / total > MEMORY_CRITICAL)


@dataclass
class SystemVitals:
    """CPU, RAM, GPUs and throughput. None means "could not be read"; the ``gpu_*`` fields repeat
    GPU 0 for those who have one."""

    gpu_stats: dict[int, GPUStats] = field(default_factory=dict)
    gpu_memory_used_gb: float = 0.0
    gpu_memory_total_gb: float = 0.0
    gpu_utilization: float = 0.0
    ram_used_gb: float | None = None
    ram_total_gb: float | None = None
    epochs_per_second: float = 0.0
    batches_per_hour: float = 0.0
    throughput_present: bool = False
    host_params: int = 0
    unexported: ClassVar[Unexported] = {
        VITALS + "the driver reports esper_gpu_*": (
            "gpu_stats gpu_memory_used_gb gpu_memory_total_gb gpu_utilization"
        ),
        VITALS + "the host reports esper_host_memory_*": ("ram_used_gb ram_total_gb"),
        WALL_CLOCK + "esper_tolaria_epochs_per_second uses event times": "epochs_per_second",
        WALL_CLOCK + "esper_tolaria_batches_per_second uses event times": "batches_per_hour",
        "the throughput metrics are absent when it is false": "throughput_present",
    }

    @property
    def memory_alarm_devices(self) -> list[str]:
        """What is more than 90 % full: ``RAM``, ``cuda:0``, …"""
        devices = ["RAM"] if _full(self.ram_used_gb, self.ram_total_gb) else []
        devices += [
            f"cuda:{number}"
            for number, gpu in self.gpu_stats.items()
            if _full(gpu.memory_used_gb, gpu.memory_total_gb)
        ]
        if not self.gpu_stats and _full(self.gpu_memory_used_gb, self.gpu_memory_total_gb):
            devices.append("cuda:0")
        return devices

    @property
    def has_memory_alarm(self) -> bool:
        """Whether RAM or any GPU's memory is more than 90 % full."""
        return bool(self.memory_alarm_devices)
