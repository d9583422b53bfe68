"""From reports of the machine and its GPUs to rows of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.rows import Mirror
from esper_exporter.metrics.table import ValueTable
from esper_exporter.probes.gpu.driver import MigInstance
from esper_exporter.probes.gpu.gpu_report import GpuReport, XidReport
from esper_exporter.probes.gpu.ordinals import driver_uuid, ordinals_of
from esper_exporter.probes.host.host_sampler import HostReport
from esper_exporter.probes.samples import Cell, Cells
from esper_exporter.state import counted
from esper_exporter.state.run import RunState

Rows = Mapping[tuple[str, ...], Cells]

GPU_BLOCKS = ("gpus", "esper_gpu_info", "gpu", "gpu_ecc", "esper_gpu_mig_info", "gpu_mig")
ERRORS = counted.GPU_FIELD_ERRORS.name
ECC = "esper_gpu_ecc_errors_total"


class VitalRows:
    """The rows of machine, process, disks and GPUs. Its owner calls it under the exporter's lock.

    A report is written once, however often it is shown.
    """

    def __init__(self, table: ValueTable, blocks: Blocks) -> None:
        names = (*GPU_BLOCKS, "gpu_xid", "gpu_use", ERRORS, "host", "process", "disk")
        self._mirrors = {name: Mirror(table, blocks, name) for name in names}
        self._shown: dict[str, object] = {}
        self._uses: dict[tuple[str, ...], Cells] = {}

    def _news(self, what: str, report: object) -> bool:
        """Whether a report is another one than was shown last."""
        if self._shown.get(what) is report:
            return False
        self._shown[what] = report
        return True

    def show_host(self, report: HostReport) -> None:
        """Show machine and process."""
        if self._news("host", report):
            self._mirrors["host"].show({(): report.host} if report.host else {})
            self._mirrors["process"].show({(): report.process} if report.process else {})

    def show_disks(self, disks: Mapping[str, Cells]) -> None:
        """Show the space of each directory."""
        if self._news("disks", disks):
            self._mirrors["disk"].show({(name,): cells for name, cells in disks.items()})

    def show_gpus(self, report: GpuReport, xids: XidReport) -> None:
        """Show all GPUs and their errors."""
        news = self._news("gpus", report)
        if news:
            rows = gpu_rows(report)
            for block in GPU_BLOCKS:
                self._mirrors[block].show(rows[block])
        if self._news("xids", xids) or news:
            self._mirrors["gpu_xid"].show(xid_rows(xids) if report.whole else {})
            errors = dict(report.errors)
            for key, count in xids.errors.items():
                errors[key] = errors.get(key, 0) + count
            self._mirrors[ERRORS].show({key: {(ERRORS,): float(n)} for key, n in errors.items()})

    def show_uses(self, report: GpuReport, runs: Iterable[RunState]) -> None:
        """Show which GPUs each run uses."""
        wanted = uses(report, runs) if report.cuda else {}
        if wanted != self._uses:
            self._uses = wanted
            self._mirrors["gpu_use"].show(wanted)


def gpu_rows(report: GpuReport) -> dict[str, dict[tuple[str, ...], Cells]]:
    """The rows of each block. Whole GPUs have none where another process reports them."""
    rows: dict[str, dict[tuple[str, ...], Cells]] = {block: {} for block in GPU_BLOCKS}
    if report.present is not None:
        rows["gpus"][()] = {("esper_gpu_present",): float(report.present)}
    for sample in report.gpus:
        which, key = sample.identity, (sample.identity.gpu, sample.identity.uuid)
        cells = dict(sample.cells)
        if report.whole:
            versions = (report.versions.driver, report.versions.cuda)
            info = (*key, which.name, which.pci_bus_id, *versions, report.source)
            rows["esper_gpu_info"][info] = {("esper_gpu_info",): 1.0}
            if sample.answered_at is not None:
                cells[("esper_gpu_last_sample_timestamp_seconds",)] = sample.answered_at
        for cell, value in sample.cells.items():
            if cell[0] == ECC:
                rows["gpu_ecc"][(*key, *cell[1:])] = {(ECC,): value}
        if cells:
            rows["gpu"][key] = cells
        for instance in sample.instances:
            names = (*key, instance.mig, instance.uuid, instance.name)
            ids = (instance.gpu_instance_id, instance.compute_instance_id)
            rows["esper_gpu_mig_info"][(*names, *ids)] = {("esper_gpu_mig_info",): 1.0}
            rows["gpu_mig"][(*key, instance.uuid)] = _mig_memory(instance)
    return rows


def _mig_memory(instance: MigInstance) -> Cells:
    memory = {"used": instance.memory_used, "total": instance.memory_total}
    return {
        (f"esper_gpu_mig_memory_{what}_bytes",): float(value)
        for what, value in memory.items()
        if value is not None
    }


def xid_rows(report: XidReport) -> Rows:
    """A row for each code of each GPU."""
    rows: dict[tuple[str, ...], Cells] = {}
    for key, count in report.counts.items():
        cells: dict[Cell, float] = {("esper_gpu_xid_errors_total",): float(count)}
        if key in report.last:
            cells[("esper_gpu_xid_last_timestamp_seconds",)] = report.last[key]
        rows[key] = cells
    return rows


def uses(report: GpuReport, runs: Iterable[RunState]) -> dict[tuple[str, ...], Cells]:
    """A row for each GPU of each run, with its MIG instance's UUID where it uses one."""
    known = [(sample.identity.uuid, sample.identity.pci_bus_id) for sample in report.gpus]
    known += [(part.uuid, "") for sample in report.gpus for part in sample.instances]
    uuids = {device.ordinal: driver_uuid(device, known) for device in report.cuda}
    rows: dict[tuple[str, ...], Cells] = {}
    for run in runs:
        if run.ended_at is not None or not run.active:
            continue
        memory = run.started
        devices = () if memory is None else (memory.policy_device, *memory.env_devices)
        for ordinal in sorted(ordinals_of(devices, report.cuda)):
            uuid = uuids.get(ordinal)
            if uuid is not None:
                labels = tuple(value for _, value in run.identity.labels())
                rows[(*labels, uuid, str(ordinal))] = {("esper_gpu_used_by_run",): 1.0}
    return rows
