"""The numbers that CUDA gives GPUs in this process, by what does not change: UUID and PCI bus."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from esper_exporter.probes.gpu.driver import CudaDevice


def cuda_devices(modules: Mapping[str, ModuleType] = sys.modules) -> tuple[CudaDevice, ...]:
    """The GPUs that torch sees, once the training itself has begun to use CUDA through it.

    Neither imports torch nor initialises CUDA: that would take memory on a GPU. Waits for none.
    """
    torch = modules.get("torch")
    if torch is None:
        return ()
    try:
        cuda = torch.cuda
        if not cuda.is_initialized():
            return ()
        found = []
        for ordinal in range(cuda.device_count()):
            told = cuda.get_device_properties(ordinal)
            found.append(
                CudaDevice(
                    ordinal,
                    str(getattr(told, "uuid", "")),
                    _bus_id(told),
                    bool(cuda.memory_reserved(ordinal)),
                )
            )
        return tuple(found)
    except Exception:
        # Not our code: half imported, built without CUDA, or without a device after all.
        return ()


def _bus_id(told: object) -> str:
    domain, bus, device = (
        getattr(told, f"pci_{name}_id", None) for name in ("domain", "bus", "device")
    )
    if domain is None or bus is None or device is None:
        return ""
    return f"{domain:08x}:{bus:02x}:{device:02x}.0"


def driver_uuid(device: CudaDevice, known: Iterable[tuple[str, str]]) -> str | None:
    """The driver's UUID of a CUDA device, from the (UUID, PCI bus id) pairs that the driver lists;
    None if it is none of them. torch writes UUIDs without the driver's ``GPU-`` or ``MIG-``."""
    pairs = list(known)
    wanted = _bare(device.uuid)
    for uuid, _ in pairs:
        if wanted and _bare(uuid) == wanted:
            return uuid
    for uuid, bus in pairs:
        if device.pci_bus_id and _bus(bus) == _bus(device.pci_bus_id):
            return uuid
    return None


def ordinals_of(devices: Sequence[str], seen: Sequence[CudaDevice]) -> set[int]:
    """The ordinals of a run whose devices are told as torch writes them (``cuda:1``).

    Where none is told by number, those on which the process holds memory.
    """
    named = {
        int(number)
        for device in devices
        if (number := device.removeprefix("cuda:")) != device and number.isdecimal()
    }
    return named or {device.ordinal for device in seen if device.holds_memory}


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()


def _bus(bus_id: str) -> str:
    """Drivers write the domain with four digits or with eight."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain.lstrip('0')}:{rest}"
