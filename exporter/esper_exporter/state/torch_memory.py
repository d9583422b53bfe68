"""torch's CUDA allocator by device, from any event that reports it, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from esper_exporter.contract.infra import AllocatorStatsPayload, InfrastructureSnapshotPayload
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.state.policy import InfrastructureMetrics

GIB = float(1024**3)
MAX_DEVICES = 64

Report = Mapping[str, float | None]
"""Fields of `TorchMemory`; None for what an event does not carry."""


@dataclass(slots=True)
class TorchMemory:
    """The allocator on one device, as reported last: bytes, a share of what is reserved, counts.

    None is what no event has reported.
    """

    allocated: float | None = None
    reserved: float | None = None
    active: float | None = None
    inactive: float | None = None
    peak: float | None = None
    delta: float | None = None
    fragmentation: float | None = None
    retries: int | None = None
    ooms: int | None = None

    def see(self, report: Report) -> None:
        """Take over what an event reports, and leave what it does not."""
        for name, value in report.items():
            if value is not None:
                setattr(self, name, value)


def of_allocator(stats: AllocatorStatsPayload) -> Report:
    """ALLOCATOR_STATS, which counts bytes."""
    reserved = stats.reserved_bytes
    return {
        "allocated": stats.allocated_bytes,
        "reserved": reserved,
        "fragmentation": stats.fragmentation_bytes / reserved if reserved else None,
        "retries": stats.num_alloc_retries,
        "ooms": stats.num_ooms,
    }


def of_infrastructure(snapshot: InfrastructureSnapshotPayload) -> Report:
    """INFRASTRUCTURE_SNAPSHOT, which counts GiB."""
    return {
        "allocated": _bytes(snapshot.cuda_memory_allocated_gb),
        "reserved": _bytes(snapshot.cuda_memory_reserved_gb),
        "active": _bytes(snapshot.cuda_memory_active_gb),
        "inactive": _bytes(snapshot.cuda_memory_inactive_gb),
        "peak": _bytes(snapshot.cuda_memory_peak_gb),
        "delta": _bytes(snapshot.memory_allocated_delta_gb),
        "fragmentation": snapshot.cuda_memory_fragmentation,
        "ooms": snapshot.cuda_oom_events,
    }


def of_update(metrics: InfrastructureMetrics | TamiyoPolicyUpdatePayload) -> Report:
    """A policy update, which counts GiB. A process that has reserved none did not measure it."""
    if not metrics.cuda_memory_reserved_gb:
        return {}
    return {
        "allocated": _bytes(metrics.cuda_memory_allocated_gb),
        "reserved": _bytes(metrics.cuda_memory_reserved_gb),
        "peak": _bytes(metrics.cuda_memory_peak_gb),
        "fragmentation": metrics.cuda_memory_fragmentation,
    }


def _bytes(gib: float | None) -> float | None:
    return None if gib is None else gib * GIB
