"""The machine as JSON: GPUs, host, process and disks, from the samplers' last reports."""

from __future__ import annotations

from collections.abc import Mapping

from esper_exporter import health
from esper_exporter.probes.gpu.gpu_report import GpuReport
from esper_exporter.probes.host.host_sampler import HostReport
from esper_exporter.probes.samples import Cells
from esper_exporter.serve.page.numbers import LEVELS, Json, number
from esper_exporter.serve.page.verdict import Reason

_GPU = {
    "utilization": "esper_gpu_utilization_ratio",
    "memory_used": "esper_gpu_memory_used_bytes",
    "memory_total": "esper_gpu_memory_total_bytes",
    "temperature": "esper_gpu_temperature_celsius",
    "power": "esper_gpu_power_watts",
    "power_limit": "esper_gpu_power_limit_watts",
    "process_memory": "esper_gpu_process_memory_bytes",
}
_HOST = {
    "cpus": "esper_host_cpus",
    "cpu": "esper_host_cpu_utilization_ratio",
    "memory_used": "esper_host_memory_used_bytes",
    "memory_total": "esper_host_memory_total_bytes",
    "swap_used": "esper_host_swap_used_bytes",
    "load1": "esper_host_load1",
}
_PROCESS = {
    "process_memory": "process_resident_memory_bytes",
    "process_threads": "esper_host_process_threads",
    "container_memory_used": "esper_host_cgroup_memory_used_bytes",
    "container_memory_limit": "esper_host_cgroup_memory_limit_bytes",
}


def _pick(cells: Cells, names: Mapping[str, str]) -> Json:
    return {key: number(cells.get((name,))) for key, name in names.items()}


def _share(cells: Cells, used: str, total: str) -> float | None:
    part, whole = cells.get((used,)), cells.get((total,))
    return None if part is None or not whole else part / whole


def system_json(
    gpus: GpuReport | None, host: HostReport | None, disks: Mapping[str, Cells] | None
) -> Json:
    """The machine's last samples; an empty list or null where nothing samples it."""
    return {
        "gpus": []
        if gpus is None
        else [_gpu(sample.identity, sample.cells) for sample in gpus.gpus],
        "host": None if host is None else _host(host),
        "disks": [
            {
                "name": name,
                "free": number(cells.get(("esper_host_disk_free_bytes",))),
                "total": number(cells.get(("esper_host_disk_total_bytes",))),
            }
            for name, cells in (disks or {}).items()
        ],
    }


def gpu_reasons(gpus: GpuReport | None, now: float) -> list[Reason]:
    """A reason for each GPU that does not answer: critical where that has lasted as long as the
    rule EsperGpuSilent waits."""
    found = []
    for sample in () if gpus is None else gpus.gpus:
        if not sample.cells:
            heard = sample.answered_at
            silent = heard is not None and now - heard > health.GPU_SILENT_SECONDS
            level = "crit" if silent else "warn"
            name = f"GPU {sample.identity.gpu}"
            found.append(
                Reason(level, "cross", name, "does not answer", "system", "EsperGpuSilent")
            )
    return found


def _gpu(identity: object, cells: Cells) -> Json:
    hot = cells.get(("esper_gpu_temperature_celsius",))
    memory = _share(cells, _GPU["memory_used"], _GPU["memory_total"])
    return {
        "gpu": getattr(identity, "gpu", ""),
        "name": getattr(identity, "name", ""),
        "uuid": getattr(identity, "uuid", ""),
        **_pick(cells, _GPU),
        "lost": not cells,
        "memory_level": LEVELS[health.memory_level(memory)],
        "temperature_level": "none"
        if hot is None
        else "warn"
        if hot > health.GPU_HOT_CELSIUS
        else "ok",
    }


def _host(report: HostReport) -> Json:
    memory = _share(report.host, _HOST["memory_used"], _HOST["memory_total"])
    return {
        **_pick(report.host, _HOST),
        **_pick(report.process, _PROCESS),
        "memory_level": LEVELS[health.memory_level(memory)],
    }
