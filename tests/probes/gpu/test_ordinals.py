"""The training's CUDA numbers find the driver's GPUs by UUID or PCI bus, never by index."""

from __future__ import annotations

import itertools
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.metrics.vital_rows import uses
from esper_exporter.probes.gpu.driver import CudaDevice, Identity, MigInstance
from esper_exporter.probes.gpu.gpu_report import GpuReport, GpuSample
from esper_exporter.probes.gpu.ordinals import cuda_devices, driver_uuid, ordinals_of
from esper_exporter.probes.gpu.process_tree import Family
from support.nvml import uuid
from support.recordings import telemetry_lines

KNOWN = [(uuid(index), f"00000000:{index + 0x1B:02x}:00.0") for index in range(3)]


def torch_with(visible: list[int], *, initialized: bool = True, by_uuid: bool = True) -> Any:
    """A module like torch that sees these GPUs of the driver, in this order."""

    def properties(ordinal: int) -> SimpleNamespace:
        index = visible[ordinal]
        if by_uuid:
            return SimpleNamespace(uuid=uuid(index).removeprefix("GPU-").upper())
        return SimpleNamespace(pci_domain_id=0, pci_bus_id=index + 0x1B, pci_device_id=0)

    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        is_initialized=lambda: initialized,
        device_count=lambda: len(visible),
        get_device_properties=properties,
        memory_reserved=lambda ordinal: 1024 if ordinal == 0 else 0,
    )
    return {"torch": torch}


@pytest.mark.parametrize("by_uuid", [True, False])
@pytest.mark.parametrize("visible", list(itertools.permutations(range(3), 2)))
def test_whatever_the_order_of_visible_devices_each_ordinal_finds_its_gpu(
    visible: tuple[int, ...], by_uuid: bool
) -> None:
    found = cuda_devices(torch_with(list(visible), by_uuid=by_uuid))
    assert [driver_uuid(device, KNOWN) for device in found] == [uuid(index) for index in visible]


def test_a_gpu_that_the_driver_does_not_list_is_none_of_them() -> None:
    (found,) = cuda_devices(torch_with([7]))
    assert driver_uuid(found, KNOWN) is None
    assert driver_uuid(CudaDevice(0, "", "", True), KNOWN) is None


@pytest.mark.parametrize(
    "modules",
    [
        {},
        torch_with([0], initialized=False),
        {"torch": ModuleType("torch")},
        {"torch": SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: 1 / 0))},
    ],
    ids=["no torch", "CUDA not begun", "half imported", "broken"],
)
def test_while_the_training_does_not_use_cuda_there_is_nothing(modules: dict[str, Any]) -> None:
    assert cuda_devices(modules) == ()


@pytest.mark.parametrize(
    ("reported", "ordinals"),
    [
        (("cuda:1", "cuda:2", "cuda:1"), {1, 2}),
        (("cpu", "cuda:2"), {2}),
        (("cuda",), {0}),
        (("cpu",), {0}),
        ((), {0}),
    ],
)
def test_a_run_uses_the_devices_it_names_else_those_that_hold_its_memory(
    reported: tuple[str, ...], ordinals: set[int]
) -> None:
    assert ordinals_of(reported, cuda_devices(torch_with([0, 1, 2]))) == ordinals


def report(cuda: tuple[CudaDevice, ...], parts: tuple[MigInstance, ...] = ()) -> GpuReport:
    samples = tuple(
        GpuSample(Identity(str(index), name, "", bus), instances=parts)
        for index, (name, bus) in enumerate(KNOWN)
    )
    return GpuReport("nvml", gpus=samples, cuda=cuda)


def run_of(exporter: Exporter) -> Any:
    (entry,) = exporter._runs.current.values()
    return entry.state


def test_the_row_has_the_run_the_uuid_and_the_ordinal_and_goes_with_the_run() -> None:
    exporter = Exporter(port=0, run_id="night-7")
    started = telemetry_lines("run1")[0].replace(b'"cpu"', b'"cuda:1"')
    exporter.emit_line(started)
    run = run_of(exporter)
    reported = report(cuda_devices(torch_with([2, 0])))
    assert list(uses(reported, [run])) == [("night-7", "default", "0", uuid(0), "1")]
    exporter.mark_ended(None)
    assert uses(reported, [run]) == {}


def test_a_mig_instance_is_found_under_its_own_uuid() -> None:
    part = MigInstance("0", "MIG-abc", "", "7", "0")
    exporter = Exporter(port=0, run_id="night-7")
    exporter.emit_line(telemetry_lines("run1")[0].replace(b'"cpu"', b'"cuda:0"'))
    reported = report((CudaDevice(0, "ABC", "", True),), (part,))
    assert list(uses(reported, [run_of(exporter)])) == [("night-7", "default", "0", "MIG-abc", "0")]


def test_a_process_is_ours_if_it_is_this_one_or_descends_from_it() -> None:
    import multiprocessing
    import os

    family = Family()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=input)
    child.start()
    try:
        assert child.pid is not None
        assert family.includes(os.getpid())
        assert family.includes(child.pid)
        assert not family.includes(os.getppid())
        assert not family.includes(2**22 + 1)
    finally:
        child.terminate()
        child.join()
