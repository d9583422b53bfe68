"""torch's own numbers: memory of the CUDA allocator, compilations of torch.compile."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from esper_exporter.probes.torch.emitter import Emitter
from esper_exporter.probes.torch.phases import Phases

GIB = float(1024**3)


class Memory:
    """The CUDA allocator's numbers, without waiting for the device; none on another device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: float | None = None

    def stats(self) -> Mapping[str, Any]:
        """``torch.cuda.memory_stats`` as of now; empty on another device."""
        return torch.cuda.memory_stats(self._device) if self._device.type == "cuda" else {}

    def allocator(self, stats: Mapping[str, Any]) -> dict[str, str | int]:
        """Fields of ALLOCATOR_STATS (bytes, counts so far) from memory_stats."""
        allocated = int(stats["allocated_bytes.all.current"])
        reserved = int(stats["reserved_bytes.all.current"])
        return {
            "device": str(self._device),
            "allocated_bytes": allocated,
            "reserved_bytes": reserved,
            "fragmentation_bytes": reserved - allocated,
            "num_alloc_retries": int(stats["num_alloc_retries"]),
            "num_ooms": int(stats["num_ooms"]),
        }

    def fields(self, stats: Mapping[str, Any]) -> dict[str, float | int]:
        """Fields of INFRASTRUCTURE_SNAPSHOT (GiB) from memory_stats; empty from empty stats."""
        if not stats:
            return {}
        allocated = stats["allocated_bytes.all.current"] / GIB
        reserved = stats["reserved_bytes.all.current"] / GIB
        found: dict[str, float | int] = {
            "cuda_memory_allocated_gb": allocated,
            "cuda_memory_reserved_gb": reserved,
            "cuda_memory_active_gb": stats["active_bytes.all.current"] / GIB,
            "cuda_memory_inactive_gb": stats["inactive_split_bytes.all.current"] / GIB,
            "cuda_memory_peak_gb": stats["allocated_bytes.all.peak"] / GIB,
            "cuda_memory_fragmentation": 1.0 - allocated / reserved if reserved else 0.0,
            "cuda_oom_events": int(stats["num_ooms"]),
        }
        if self._before is not None:
            found["memory_allocated_delta_gb"] = allocated - self._before
        self._before = allocated
        return found


def emit_machine(
    emitter: Emitter, memory: Memory, phases: Phases, updates: int, window: int
) -> None:
    """Emit the allocator's numbers, compilations and phase times of the last ``window`` updates;
    ``updates`` is the number of the last one."""
    times = phases.take()
    means = {
        f"avg_{phase}_time_ms": sum(values) / len(values)
        for phase, values in times.items()
        if phase != "epoch"
    }
    stats = memory.stats()
    if stats:
        emitter.emit("ALLOCATOR_STATS", {"batch_idx": updates, **memory.allocator(stats)})
    found: dict[str, Any] = {**memory.fields(stats), **compilation(), **means}
    if found or times:
        found |= {"phase_times_ms": times, "batch_window": window}
        emitter.emit("INFRASTRUCTURE_SNAPSHOT", found)


def compilation() -> dict[str, int]:
    """Counts of torch.compile so far; empty in a process without any."""
    if "torch._dynamo.utils" not in sys.modules:
        return {}
    from torch._dynamo import convert_frame, utils

    counters: Mapping[str, Mapping[str, int]] = utils.counters
    if not convert_frame.FRAME_COMPILE_COUNTER and not counters:
        return {}
    inductor = counters.get("inductor", {})
    return {
        "compile_graph_breaks": sum(counters.get("graph_break", {}).values()),
        "compile_recompilations": sum(
            max(0, count - 1) for count in convert_frame.FRAME_COMPILE_COUNTER.values()
        ),
        "compile_cache_hits": inductor.get("fxgraph_cache_hit", 0),
        "compile_cache_misses": inductor.get("fxgraph_cache_miss", 0),
        "dynamo_guard_failures": sum(len(each) for each in utils.guard_failures.values()),
    }


def place_in_world() -> dict[str, int]:
    """``rank``, ``world_size`` and ``local_rank`` of this process, as far as they are known."""
    found = {
        field: int(os.environ[variable])
        for field, variable in (
            ("rank", "RANK"),
            ("world_size", "WORLD_SIZE"),
            ("local_rank", "LOCAL_RANK"),
        )
        if os.environ.get(variable, "").isdigit()
    }
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        found |= {"rank": distributed.get_rank(), "world_size": distributed.get_world_size()}
    return found
