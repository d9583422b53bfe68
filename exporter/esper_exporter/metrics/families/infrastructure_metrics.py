"""Observations, torch's memory and compilation: what the policy sees, and what carries it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from esper_exporter.contract.vocabulary import GRAD_SCALER_STATES
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter_in, gauge, histogram, states
from esper_exporter.state import counted

PERCENT = 0.01

OBSERVATION_METRICS: tuple[Metric, ...] = tuple(
    gauge("observations", f"esper_tamiyo_observation_{part}", f"observation_stats.{field}", text)
    for part, field, text in (
        ("slot_features_mean", "slot_features_mean", "Mean of the slot features."),
        ("slot_features_std", "slot_features_std", "Spread of the slot features."),
        ("host_features_mean", "host_features_mean", "Mean of the host features."),
        ("host_features_std", "host_features_std", "Spread of the host features."),
        ("context_features_mean", "context_features_mean", "Mean of the context features."),
        ("context_features_std", "context_features_std", "Spread of the context features."),
        ("outlier_ratio", "outlier_pct", "Share of observations beyond three sigma, 0 to 1."),
        ("near_clip_ratio", "near_clip_pct", "Share of observations near the clip, 0 to 1."),
        ("clip_ratio", "clip_pct", "Share of observations clipped, 0 to 1."),
        ("nan_values", "nan_count", "NaN values in the last observations."),
        ("inf_values", "inf_count", "Inf values in the last observations."),
        ("nan_ratio", "nan_pct", "Share of NaN in the last observations, 0 to 1."),
        ("inf_ratio", "inf_pct", "Share of Inf in the last observations, 0 to 1."),
        ("normalization_drift", "normalization_drift", "Drift of the normalisation's statistics."),
        ("batch_size", "batch_size", "Environments in the last observations."),
    )
)


GIB = float(1024**3)

_UPDATE = ("tamiyo.infrastructure.", "event:PPO_UPDATE_COMPLETED.")
_SNAPSHOT = "event:INFRASTRUCTURE_SNAPSHOT."


def _memory(
    name: str, field: str, sources: tuple[str, ...], help: str, scale: float = 1.0
) -> Metric:
    make = counter_in if name.endswith("_total") else gauge
    return replace(
        make("device", f"esper_torch_memory_{name}", sources, help),
        scale=scale,
        read=lambda roots: getattr(roots["memory"], field),
        reads_base_units=True,
    )


def _sources(field: str, *, by_update: bool) -> tuple[str, ...]:
    return tuple(prefix + field for prefix in (*(_UPDATE if by_update else ()), _SNAPSHOT))


DEVICE_METRICS: tuple[Metric, ...] = (
    _memory(
        "allocated_bytes",
        "allocated",
        _sources("cuda_memory_allocated_gb", by_update=True),
        "CUDA memory held by tensors (1 GB = 2^30 bytes at the source).",
        GIB,
    ),
    _memory(
        "reserved_bytes",
        "reserved",
        _sources("cuda_memory_reserved_gb", by_update=True),
        "CUDA memory held by torch's allocator.",
        GIB,
    ),
    _memory(
        "active_bytes",
        "active",
        _sources("cuda_memory_active_gb", by_update=False),
        "CUDA memory in blocks that are in use or about to be freed.",
        GIB,
    ),
    _memory(
        "inactive_bytes",
        "inactive",
        _sources("cuda_memory_inactive_gb", by_update=False),
        "CUDA memory that torch keeps, does not use, and cannot give back.",
        GIB,
    ),
    _memory(
        "peak_bytes",
        "peak",
        _sources("cuda_memory_peak_gb", by_update=True),
        "Most CUDA memory ever held by tensors.",
        GIB,
    ),
    _memory(
        "delta_bytes",
        "delta",
        _sources("memory_allocated_delta_gb", by_update=False),
        "Change of the CUDA memory held by tensors since the batch before.",
        GIB,
    ),
    _memory(
        "fragmentation_ratio",
        "fragmentation",
        _sources("cuda_memory_fragmentation", by_update=True),
        "Share of the reserved CUDA memory that no tensor uses; above 0.3 is pressure.",
    ),
    _memory(
        "allocation_retries_total",
        "retries",
        ("event:ALLOCATOR_STATS.num_alloc_retries",),
        "CUDA allocations that succeeded only after torch gave back what it kept.",
    ),
    _memory(
        "ooms_total",
        "ooms",
        (_SNAPSHOT + "cuda_oom_events", "event:ALLOCATOR_STATS.num_ooms"),
        "CUDA out-of-memory errors.",
    ),
)
"""One family each, from the event that reported it last: ALLOCATOR_STATS has bytes of the device it
names, the others GiB of the policy's device."""


def _from(event: str, name: str, field: str, help: str, **options: Any) -> Metric:
    return gauge("run", name, event + field, help, **options)


def _infra(name: str, field: str, help: str, **options: Any) -> Metric:
    return _from("event:INFRASTRUCTURE_SNAPSHOT.", name, field, help, **options)


INFRASTRUCTURE_METRICS: tuple[Metric, ...] = (
    _infra(
        "esper_torch_gpu_utilization_ratio",
        "gpu_utilization_pct",
        "Share of time the GPU was busy, as the trainer saw it, 0 to 1.",
        scale=PERCENT,
    ),
    _infra(
        "esper_torch_gpu_memory_bandwidth_ratio",
        "gpu_memory_bandwidth_pct",
        "Share of time the GPU's memory was busy, 0 to 1.",
        scale=PERCENT,
    ),
    _infra(
        "esper_torch_compile_graph_breaks",
        "compile_graph_breaks",
        "Graph breaks of torch.compile so far.",
    ),
    _infra(
        "esper_torch_compile_recompilations",
        "compile_recompilations",
        "Recompilations of torch.compile so far.",
    ),
    _infra(
        "esper_torch_compile_cache_hits",
        "compile_cache_hits",
        "Cache hits of torch.compile so far.",
    ),
    _infra(
        "esper_torch_compile_cache_misses",
        "compile_cache_misses",
        "Cache misses of torch.compile so far.",
    ),
    _infra(
        "esper_torch_compile_guard_failures",
        "dynamo_guard_failures",
        "Guard failures of torch.compile so far.",
    ),
    _infra(
        "esper_torch_forward_seconds",
        "avg_forward_time_ms",
        "Mean time of a forward pass.",
        scale=0.001,
    ),
    _infra(
        "esper_torch_backward_seconds",
        "avg_backward_time_ms",
        "Mean time of a backward pass.",
        scale=0.001,
    ),
    _infra(
        "esper_torch_optimizer_seconds",
        "avg_optimizer_time_ms",
        "Mean time of an optimizer step.",
        scale=0.001,
    ),
    _infra(
        "esper_torch_data_transfer_seconds",
        "avg_data_transfer_time_ms",
        "Mean time of moving a batch to the device.",
        scale=0.001,
    ),
    _infra(
        "esper_torch_infrastructure_window_batches",
        "batch_window",
        "Batches that these means cover.",
    ),
    _from(
        "event:MEMORY_WARNING.",
        "esper_torch_memory_warning_ratio",
        "gpu_utilization",
        "GPU memory in use at the trainer's last memory warning, 0 to 1.",
    ),
    _from(
        "event:MEMORY_WARNING.",
        "esper_torch_memory_warning_allocated_bytes",
        "gpu_allocated_gb",
        "GPU memory allocated at the last warning (1 GB = 2^30).",
        scale=GIB,
    ),
    _from(
        "event:MEMORY_WARNING.",
        "esper_torch_memory_warning_capacity_bytes",
        "gpu_total_gb",
        "GPU memory in total, at the last warning (1 GB = 2^30).",
        scale=GIB,
    ),
    _from(
        "event:MEMORY_WARNING.",
        "esper_torch_memory_warning_threshold_ratio",
        "threshold",
        "Share of GPU memory from which the trainer warns, 0 to 1.",
    ),
    states(
        "policy",
        "esper_torch_grad_scaler_state",
        "state",
        GRAD_SCALER_STATES,
        "derived: grad_scaler_state of the last update",
        "What the AMP loss scale did in the last update: 1 for the current state. Of several"
        " hosts' scalers it is the worst: decaying, else growing.",
        lambda roots: None if roots["update"] is None else roots["update"].grad_scaler_state,
    ),
    histogram(
        counted.TORCH_PHASE_DURATION,
        "derived: phase_times_ms of every INFRASTRUCTURE_SNAPSHOT",
        "Duration of each phase of a training step: a forward or backward pass, an optimizer step,"
        " a transfer to the device, an epoch.",
    ),
)
