"""torch's CUDA allocator by device, whichever event told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_exporter.contract.infra import AllocatorStatsPayload, InfrastructureSnapshotPayload

if TYPE_CHECKING:
    from esper_exporter.state.run import RunState

GIB = float(1024**3)
MAX_DEVICES = 64


@dataclass(slots=True)
class TorchMemory:
    """The allocator on one device, as told last: GiB, a share of what is reserved, counts so far.

    None is what no event has told.
    """

    allocated_gb: float | None = None
    reserved_gb: float | None = None
    active_gb: float | None = None
    inactive_gb: float | None = None
    peak_gb: float | None = None
    delta_gb: float | None = None
    fragmentation: float | None = None
    retries: int | None = None
    ooms: int | None = None

    def see(self, **told: float | None) -> None:
        """Take over what an event told, and leave what it did not."""
        for name, value in told.items():
            if value is not None:
                setattr(self, name, value)


def see_allocator(run: RunState, told: AllocatorStatsPayload) -> None:
    """ALLOCATOR_STATS, which names its device."""
    memory = _of(run, told.device)
    if memory is not None:
        memory.see(
            allocated_gb=told.allocated_bytes / GIB,
            reserved_gb=told.reserved_bytes / GIB,
            fragmentation=told.fragmentation_bytes / told.reserved_bytes
            if told.reserved_bytes
            else None,
            retries=told.num_alloc_retries,
            ooms=told.num_ooms,
        )


def see_infrastructure(run: RunState, told: InfrastructureSnapshotPayload) -> None:
    """INFRASTRUCTURE_SNAPSHOT: the policy's device."""
    fields = {
        "allocated_gb": told.cuda_memory_allocated_gb,
        "reserved_gb": told.cuda_memory_reserved_gb,
        "active_gb": told.cuda_memory_active_gb,
        "inactive_gb": told.cuda_memory_inactive_gb,
        "peak_gb": told.cuda_memory_peak_gb,
        "delta_gb": told.memory_allocated_delta_gb,
        "fragmentation": told.cuda_memory_fragmentation,
        "ooms": told.cuda_oom_events,
    }
    if any(value is not None for value in fields.values()):
        memory = _of(run, policy_device(run))
        if memory is not None:
            memory.see(**fields)


def see_update(run: RunState) -> None:
    """A policy update: the policy's device. The memory of a process that has none reserved was
    not measured."""
    told = run.snapshot.tamiyo.infrastructure
    if told.cuda_memory_reserved_gb:
        memory = _of(run, policy_device(run))
        if memory is not None:
            memory.see(
                allocated_gb=told.cuda_memory_allocated_gb,
                reserved_gb=told.cuda_memory_reserved_gb,
                peak_gb=told.cuda_memory_peak_gb,
                fragmentation=told.cuda_memory_fragmentation,
            )


def policy_device(run: RunState) -> str:
    """The CUDA device that the policy is on; ``cuda`` while that is not known."""
    named = run.started.policy_device if run.started is not None else ""
    return named if named.startswith("cuda") else "cuda"


def _of(run: RunState, device: str) -> TorchMemory | None:
    """What is known of a device, which is touched by this; None beyond the bound on how many."""
    found = run.torch_memory.get(device)
    if found is None:
        if len(run.torch_memory) >= MAX_DEVICES:
            return None
        found = run.torch_memory[device] = TorchMemory()
    run.touched.devices.add(device)
    return found
