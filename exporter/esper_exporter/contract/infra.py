"""Infrastructure: memory, phases, compilation."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import Count, Label, Whole
from esper_exporter.contract.unexported import COUNTED, POSITION, Unexported


class MemoryWarningPayload(msgspec.Struct, frozen=True, gc=False):
    """GPU memory (GiB) is nearly full; utilisation and threshold are 0 to 1."""

    gpu_utilization: float
    gpu_allocated_gb: float
    gpu_total_gb: float
    threshold: float


class AllocatorStatsPayload(msgspec.Struct, frozen=True, gc=False):
    """torch's CUDA allocator on one device."""

    batch_idx: Whole
    device: str
    allocated_bytes: Whole
    reserved_bytes: Whole
    fragmentation_bytes: Whole
    num_alloc_retries: Count
    num_ooms: Count
    unexported: ClassVar[Unexported] = {
        POSITION: "batch_idx",
        "in bytes, by device: the same as esper_torch_memory_allocated_bytes": "allocated_bytes",
        "in bytes, by device: the same as esper_torch_memory_reserved_bytes": "reserved_bytes",
        "in bytes, by device: the same as esper_torch_memory_fragmentation_ratio, over"
        " reserved_bytes": "fragmentation_bytes",
    }


class PhaseTiming(msgspec.Struct, frozen=True, gc=False):
    """One phase: wall and CPU time in milliseconds, their ratio 0 to 1."""

    wall_ms: float
    python_cpu_ms: float
    python_cpu_ratio: float
    unexported: ClassVar[Unexported] = {
        "a histogram: esper_simic_phase_duration_seconds": "wall_ms",
        COUNTED + "esper_simic_phase_cpu_seconds_total": "python_cpu_ms",
        "the ratio of the two others": "python_cpu_ratio",
    }


class PhaseProfileReport(msgspec.Struct, frozen=True, gc=False):
    """Where the trainer's time went, by phase."""

    phases: dict[Label, PhaseTiming]
    epoch: Whole | None = None
    batch_idx: Whole | None = None
    unexported: ClassVar[Unexported] = {POSITION: "epoch batch_idx"}


class InfrastructureSnapshotPayload(msgspec.Struct, frozen=True, gc=False):
    """torch's memory (GiB), compilation counts and mean step times (ms) over some batches.

    ``phase_times_ms`` holds every single time of those batches by phase, from instruments that
    keep them. The plan requires the memory fields; a run without CUDA has none.

    Source: domain separation plan, D.1, D.2 and D.7.
    """

    cuda_memory_allocated_gb: float | None = None
    cuda_memory_reserved_gb: float | None = None
    cuda_memory_active_gb: float | None = None
    cuda_memory_inactive_gb: float | None = None
    cuda_memory_peak_gb: float | None = None
    cuda_memory_fragmentation: float | None = None
    gpu_utilization_pct: float | None = None
    gpu_memory_bandwidth_pct: float | None = None
    compile_graph_breaks: Count | None = None
    compile_recompilations: Count | None = None
    compile_cache_hits: Count | None = None
    compile_cache_misses: Count | None = None
    dynamo_guard_failures: Count | None = None
    cuda_oom_events: Count | None = None
    memory_allocated_delta_gb: float | None = None
    avg_forward_time_ms: float | None = None
    avg_backward_time_ms: float | None = None
    avg_optimizer_time_ms: float | None = None
    avg_data_transfer_time_ms: float | None = None
    batch_window: Whole | None = None
    phase_times_ms: dict[Label, tuple[float, ...]] | None = None


EVENTS = (
    EventType("PHASE_PROFILE_COMPLETED", PhaseProfileReport, "apply_run.apply_phase_profile"),
    EventType(
        "MEMORY_WARNING",
        MemoryWarningPayload,
        "apply_run.apply_memory_warning",
        latest="memory_warning",
    ),
    EventType("ALLOCATOR_STATS", AllocatorStatsPayload, "apply_run.apply_allocator_stats"),
    EventType(
        "INFRASTRUCTURE_SNAPSHOT",
        InfrastructureSnapshotPayload,
        "apply_run.apply_infrastructure",
        latest="infrastructure",
    ),
)
