"""Map this process's CUDA ordinals to GPUs by UUID and PCI bus id, which do not change."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from esper_exporter.probes.gpu.driver import CudaDevice


def cuda_devices(modules: Mapping[str, ModuleType] = sys.modules) -> tuple[CudaDevice, ...]:
    """The GPUs that torch sees, once the training itself uses CUDA through torch.

    Neither imports torch nor initialises CUDA: that would allocate GPU memory. Never waits for a
    GPU.
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
            properties = cuda.get_device_properties(ordinal)
            found.append(
                CudaDevice(
                    ordinal,
                    str(getattr(properties, "uuid", "")),
                    _bus_id(properties),
                    bool(cuda.memory_reserved(ordinal)),
                )
            )
        return tuple(found)
    except Exception:
        # Foreign code: half imported, built without CUDA, or without a device after all.
        return ()


def _bus_id(properties: object) -> str:
    domain, bus, device = (
        getattr(properties, f"pci_{name}_id", None) for name in ("domain", "bus", "device")
    )
    if domain is None or bus is None or device is None:
        return ""
    return f"{domain:08x}:{bus:02x}:{device:02x}.0"


def driver_uuid(device: CudaDevice, known: Iterable[tuple[str, str]]) -> str | None:
    """The driver's UUID of a CUDA device, from the driver's (UUID, PCI bus id) pairs; None without
    a match. torch writes UUIDs without the driver's prefix ``GPU-`` or ``MIG-``."""
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
    """The ordinals of a run's devices, given as torch writes them (``cuda:1``).

    Where no device has a number, the ordinals on which the process holds memory.
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
