"""torch's CUDA memory: one family each, by device, from any event that reports it."""

from __future__ import annotations

import json
from typing import Any

from esper_exporter import Exporter
from support.pages import value, values
from support.recordings import telemetry_lines

GIB = 2**30
STARTED = json.loads(telemetry_lines("run1")[0])


def page_after(*events: tuple[str, dict[str, Any]], device: str = "cuda:1") -> str:
    exporter = Exporter(port=0)
    exporter.emit({**STARTED, "data": {**STARTED["data"], "policy_device": device}})
    for number, (kind, data) in enumerate(events):
        exporter.emit({**STARTED, "event_id": f"e{number}", "event_type": kind, "data": data})
    page = exporter.render().decode()
    assert values(page, "esper_exporter_events_rejected_total", reason="wrong_type") == [0.0]
    assert sum(values(page, "esper_exporter_events_rejected_total")) == 0
    return page


def allocator(device: str, reserved: int = 4 * GIB) -> tuple[str, dict[str, Any]]:
    return "ALLOCATOR_STATS", {
        "batch_idx": 1,
        "device": device,
        "allocated_bytes": 3 * GIB + 1,
        "reserved_bytes": reserved,
        "fragmentation_bytes": GIB,
        "num_alloc_retries": 2,
        "num_ooms": 1,
    }


def infrastructure(**fields: float) -> tuple[str, dict[str, Any]]:
    return "INFRASTRUCTURE_SNAPSHOT", fields


def update(**fields: float) -> tuple[str, dict[str, Any]]:
    losses = {"policy_loss": 0.1, "value_loss": 0.1, "entropy": 1.0, "grad_norm": 1.0}
    rest = {"kl_divergence": 0.0, "clip_fraction": 0.0, "nan_grad_count": 0}
    return "PPO_UPDATE_COMPLETED", {**losses, **rest, **fields}


def test_the_allocator_s_own_event_is_shown_to_the_byte_for_the_device_it_names() -> None:
    page = page_after(allocator("cuda:0"))
    shown = {"device": "cuda:0"}
    assert value(page, "esper_torch_memory_allocated_bytes", **shown) == 3 * GIB + 1
    assert value(page, "esper_torch_memory_reserved_bytes", **shown) == 4 * GIB
    assert value(page, "esper_torch_memory_fragmentation_ratio", **shown) == 0.25
    assert value(page, "esper_torch_memory_allocation_retries_total", **shown) == 2
    assert value(page, "esper_torch_memory_ooms_total", **shown) == 1
    assert values(page, "esper_torch_memory_peak_bytes") == []


def test_what_comes_without_a_device_is_of_the_policy_s() -> None:
    page = page_after(
        allocator("cuda:0"),
        infrastructure(cuda_memory_active_gb=0.5, memory_allocated_delta_gb=-0.25),
        update(
            cuda_memory_allocated_gb=1.0,
            cuda_memory_reserved_gb=2.0,
            cuda_memory_peak_gb=1.5,
            cuda_memory_fragmentation=0.5,
        ),
    )
    policy = {"device": "cuda:1"}
    assert value(page, "esper_torch_memory_allocated_bytes", **policy) == GIB
    assert value(page, "esper_torch_memory_active_bytes", **policy) == GIB / 2
    assert value(page, "esper_torch_memory_delta_bytes", **policy) == -GIB / 4
    assert value(page, "esper_torch_memory_peak_bytes", **policy) == 1.5 * GIB
    assert value(page, "esper_torch_memory_fragmentation_ratio", **policy) == 0.5
    assert len(values(page, "esper_torch_memory_allocated_bytes")) == 2


def test_the_event_that_came_last_is_right() -> None:
    reported = infrastructure(cuda_memory_allocated_gb=2.0)
    later = update(cuda_memory_allocated_gb=1.0, cuda_memory_reserved_gb=2.0)
    name = "esper_torch_memory_allocated_bytes"
    assert value(page_after(reported, later), name) == GIB
    assert value(page_after(later, reported), name) == 2 * GIB


def test_a_run_without_cuda_has_no_memory_of_it() -> None:
    zeros = {
        f"cuda_memory_{name}": 0.0
        for name in ("allocated_gb", "reserved_gb", "peak_gb", "fragmentation")
    }
    page = page_after(infrastructure(batch_window=10), update(**zeros), device="cpu")
    assert "esper_torch_memory_" not in page.replace("esper_torch_memory_warnings_total", "")


def test_nothing_reserved_has_no_share_that_is_fragmented() -> None:
    page = page_after(allocator("cuda:0", reserved=0))
    assert values(page, "esper_torch_memory_fragmentation_ratio") == []
    assert values(page, "esper_torch_memory_reserved_bytes") == [0.0]
