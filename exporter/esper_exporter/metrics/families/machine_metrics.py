"""The machine and the process: CPU, memory, disks, limits of the container, collected garbage."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter_in, gauge, split

PSUTIL = "derived: psutil's "
CGROUP = "derived: the process' control group (cgroup v2, else v1)"
CLIENT = "derived: prometheus_client's "
GENERATIONS = ("0", "1", "2")


def _host(name: str, source: str, help: str) -> Metric:
    return gauge("host", f"esper_host_{name}", PSUTIL + source, help)


def _process(name: str, help: str) -> Metric:
    make = counter_in if name.endswith("_total") else gauge
    return make("process", f"process_{name}", CLIENT + "ProcessCollector", help)


def _collector(name: str, help: str) -> Metric:
    return split(
        "process", f"python_gc_{name}", "generation", GENERATIONS, CLIENT + "GCCollector", help
    )


HOST_METRICS: tuple[Metric, ...] = (
    _host(
        "cpu_utilization_ratio",
        "CPU times, between two samples",
        "Share of all CPUs' time that was not idle, 0 to 1.",
    ),
    _host("cpus", "logical CPUs", "Logical CPUs of the machine."),
    _host("memory_total_bytes", "virtual memory", "Memory of the machine."),
    _host(
        "memory_available_bytes",
        "virtual memory",
        "Memory that programs can have without swapping.",
    ),
    _host("memory_used_bytes", "virtual memory", "Memory in use, without caches."),
    gauge(
        "process",
        "esper_host_memory_alarm",
        "derived: memory used / total, or used / limit of the control group, > 0.9",
        "1 when more than 90 % of the memory is in use, of the machine or of what the container"
        " may have.",
    ),
    _host("swap_total_bytes", "swap memory", "Swap space of the machine."),
    _host("swap_used_bytes", "swap memory", "Swap space in use."),
    _host("load1", "load average", "Load of the machine, mean of a minute."),
    _host("load5", "load average", "Load of the machine, mean of 5 minutes."),
    _host("load15", "load average", "Load of the machine, mean of 15 minutes."),
    gauge(
        "process",
        "esper_host_cgroup_memory_limit_bytes",
        CGROUP,
        "Most memory that the container may use; absent without a limit.",
    ),
    gauge(
        "process",
        "esper_host_cgroup_memory_used_bytes",
        CGROUP,
        "Memory of the container in use, without file caches that can be dropped.",
    ),
    gauge(
        "process",
        "esper_host_cgroup_cpu_limit",
        CGROUP,
        "CPUs that the container may use at once; absent without a limit.",
    ),
    counter_in(
        "process",
        "esper_host_cgroup_oom_kills_total",
        CGROUP,
        "Processes of the container that the kernel's OOM killer ended.",
    ),
    gauge(
        "disk",
        "esper_host_disk_total_bytes",
        PSUTIL + "disk usage",
        "Size of the file system that holds a directory of the training.",
    ),
    gauge(
        "disk",
        "esper_host_disk_free_bytes",
        PSUTIL + "disk usage",
        "Space there that the training can still use.",
    ),
    gauge(
        "process",
        "esper_host_process_threads",
        PSUTIL + "number of threads",
        "Threads of the training's process.",
    ),
)

PROCESS_METRICS: tuple[Metric, ...] = (
    _process("cpu_seconds_total", "Total user and system CPU time spent in seconds."),
    _process("resident_memory_bytes", "Resident memory size in bytes."),
    _process("virtual_memory_bytes", "Virtual memory size in bytes."),
    _process("open_fds", "Number of open file descriptors."),
    _process("max_fds", "Maximum number of open file descriptors."),
    _process("start_time_seconds", "Start time of the process since unix epoch in seconds."),
    _collector("objects_collected_total", "Objects collected during gc."),
    _collector("objects_uncollectable_total", "Uncollectable objects found during GC."),
    _collector("collections_total", "Number of times this generation was collected."),
)
"""Under the names by which dashboards know them from every other Python program."""
