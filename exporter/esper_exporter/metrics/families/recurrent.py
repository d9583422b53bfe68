"""Tamiyo's memory: the state of its LSTM, and the CUDA memory that an update leaves behind."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.families.policy import UPDATE, tamiyo_field, update_field
from esper_exporter.metrics.metric import Metric


def _if_reserved(roots: Any, name: str) -> Any:
    """CUDA memory of a process that has none reserved was not measured."""
    infrastructure = roots["snapshot"].tamiyo.infrastructure
    return getattr(infrastructure, name) if infrastructure.cuda_memory_reserved_gb else None


def _cuda(name: str, field: str, help: str, scale: float = 1.0) -> Metric:
    return Metric(
        name=name,
        kind="gauge",
        help=help + " From the last policy update; absent without CUDA.",
        block="policy",
        unit="bytes" if name.endswith("bytes") else "ratio",
        labels=("run_id", "group_id", "rank"),
        sources=(f"tamiyo.infrastructure.{field}", UPDATE + field),
        scale=scale,
        read=lambda roots: _if_reserved(roots, field),
    )


GIB = float(1024**3)

METRICS: tuple[Metric, ...] = (
    *(
        tamiyo_field(f"esper_tamiyo_lstm_{part}", f"lstm_{field}", f"LSTM state: {text}.")
        for part, field, text in (
            ("hidden_l2", "h_l2_total", "L2 norm of h over all envs"),
            ("cell_l2", "c_l2_total", "L2 norm of c over all envs"),
            ("hidden_rms", "h_rms", "root mean square of h"),
            ("cell_rms", "c_rms", "root mean square of c"),
            ("hidden_env_rms_mean", "h_env_rms_mean", "mean over envs of the RMS of h"),
            ("hidden_env_rms_max", "h_env_rms_max", "largest RMS of h of one env"),
            ("cell_env_rms_mean", "c_env_rms_mean", "mean over envs of the RMS of c"),
            ("cell_env_rms_max", "c_env_rms_max", "largest RMS of c of one env"),
            ("hidden_max", "h_max", "largest absolute value in h"),
            ("cell_max", "c_max", "largest absolute value in c"),
            ("has_nan", "has_nan", "1 if the last update saw NaN in it"),
            ("has_inf", "has_inf", "1 if the last update saw Inf in it"),
        )
    ),
    *(
        update_field(
            f"esper_tamiyo_rollout_lstm_{part}",
            f"rollout_lstm_{field}",
            f"LSTM state during the rollout: {text}.",
        )
        for part, field, text in (
            ("hidden_l2", "h_l2_total", "L2 norm of h over all envs"),
            ("cell_l2", "c_l2_total", "L2 norm of c over all envs"),
            ("hidden_rms", "h_rms", "root mean square of h"),
            ("cell_rms", "c_rms", "root mean square of c"),
            ("hidden_env_rms_mean", "h_env_rms_mean", "mean over envs of the RMS of h"),
            ("hidden_env_rms_max", "h_env_rms_max", "largest RMS of h of one env"),
            ("cell_env_rms_mean", "c_env_rms_mean", "mean over envs of the RMS of c"),
            ("cell_env_rms_max", "c_env_rms_max", "largest RMS of c of one env"),
            ("hidden_max", "h_max", "largest absolute value in h"),
            ("cell_max", "c_max", "largest absolute value in c"),
            ("has_nan", "has_nan", "1 if the last rollout saw NaN in it"),
            ("has_inf", "has_inf", "1 if the last rollout saw Inf in it"),
        )
    ),
    tamiyo_field(
        "esper_torch_dataloader_wait_ratio",
        "infrastructure.dataloader_wait_ratio",
        "Share of step time spent waiting for data.",
    ),
    _cuda(
        "esper_torch_cuda_memory_allocated_bytes",
        "cuda_memory_allocated_gb",
        "CUDA memory held by tensors (1 GB = 2^30 bytes at the source).",
        GIB,
    ),
    _cuda(
        "esper_torch_cuda_memory_reserved_bytes",
        "cuda_memory_reserved_gb",
        "CUDA memory held by torch's allocator (1 GB = 2^30 bytes at the source).",
        GIB,
    ),
    _cuda(
        "esper_torch_cuda_memory_peak_bytes",
        "cuda_memory_peak_gb",
        "Most CUDA memory ever held by tensors (1 GB = 2^30 bytes at the source).",
        GIB,
    ),
    _cuda(
        "esper_torch_cuda_memory_fragmentation_ratio",
        "cuda_memory_fragmentation",
        "Share of the reserved CUDA memory that no tensor uses; above 0.3 is pressure.",
    ),
)
