"""GPU and infrastructure: what the training runs on, and where its time goes."""

from __future__ import annotations

from dataclasses import replace

from grafana.generator.frame import CLUSTER, GROUP, INSTANCE, JOB, RUNS, alerts, run_marks
from grafana.generator.look import (
    BAD,
    GOOD,
    any_is_bad,
    lines,
    rising,
    value,
    values,
)
from grafana.generator.machine_gpus import (
    GPU_PANELS,
    GPUS,
    HOT,
    PROCESSES,
    SLOWED,
    TOO_HOT,
    UNCORRECTED,
    XIDS,
    gpu,
)
from grafana.generator.machine_torch import TIMES, TORCH
from grafana.generator.model import Dashboard, Override, Row, Target, Variable
from grafana.generator.panels import series
from grafana.generator.queries import (
    PROCESS,
    SCOPE,
    by,
    grown,
    rate,
    select,
    so_far,
)
from grafana.generator.tiles import in_lines, tile

from esper_exporter import health

HOST = ("cluster", "instance")
MEMORY_WARNING = 0.8


def _host(name: str, **matchers: str) -> str:
    return by("max", HOST, of_the_processes(select(f"esper_host_{name}", PROCESS, **matchers)))


def of_the_processes(inner: str) -> str:
    """What the processes of the chosen runs report; with All what any reports."""
    return f"{inner} and on (cluster, job, instance) {PROCESSES}"


_GPU_LOAD = gpu("utilization_ratio")
_GPU_MEMORY = f"{gpu('memory_used_bytes')} / ({gpu('memory_total_bytes')} > 0)"
_HOST_MEMORY = f"{_host('memory_used_bytes')} / {_host('memory_total_bytes')}"
_CGROUP_MEMORY = f"{_host('cgroup_memory_used_bytes')} / {_host('cgroup_memory_limit_bytes')}"

NONE = values(value(0, "○ none", GOOD))

TILES = (
    tile(
        "XID errors",
        f"sum({XIDS}) or 0 * count({gpu('info')})",
        "Errors that the driver reported of the chosen GPUs. Good: 0. The table has the GPU and its"
        " node; XID 48, 63, 64, 74, 79, 94, 95 mean hardware: take the node out.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Slowed GPUs",
        f"count({SLOWED} == 1) or 0 * count({SLOWED})",
        "GPUs whose clocks are held down now for heat or want of power. Good: 0. A power cap is"
        " none of it. See 'Held down' for the reason.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "ECC errors",
        f"sum({UNCORRECTED})",
        "Memory errors that ECC could not correct, since the driver was loaded. Good: 0. Otherwise"
        " restart elsewhere from the checkpoint.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Silent GPUs",
        f"count(time() - {gpu('last_sample_timestamp_seconds')} > 60)"
        f" or 0 * count({gpu('last_sample_timestamp_seconds')})",
        "GPUs that have not answered the driver for a minute. Good: 0. EsperGpuSilent has the"
        " runbook.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "GPUs busy",
        f"avg({_GPU_LOAD})",
        "Mean share of time in which the chosen GPUs ran a kernel. Good: high while training. n/a:"
        " there is no GPU, or its driver does not answer.",
        "percentunit",
    ),
    tile(
        "Max GPU memory",
        f"max({_GPU_MEMORY})",
        "Memory of the fullest GPU. Good: below 90 %; above, the next larger network is an"
        " out-of-memory error.",
        "percentunit",
        rising(MEMORY_WARNING, health.MEMORY_CRITICAL),
    ),
    tile(
        "Hottest GPU",
        f"max({gpu('temperature_celsius')})",
        "Good: below 80 °C. From about 90 °C clocks are held down.",
        "celsius",
        rising(HOT, TOO_HOT),
    ),
    tile(
        "Fragmentation",
        f"max({select('esper_torch_memory_fragmentation_ratio')})",
        "Share of torch's reserved CUDA memory that no tensor uses. Good: below 30 %; above, set"
        " expandable segments or empty the cache between episodes.",
        "percentunit",
        rising(health.FRAGMENTATION_WARNING, 1.01),
    ),
    tile(
        "Out of memory",
        f"sum({so_far('esper_torch_memory_ooms_total')})",
        "CUDA out-of-memory errors of the chosen runs. Good: 0. Otherwise smaller batches, fewer"
        " environments a GPU, a smaller parameter budget.",
        "short",
        any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    tile(
        "Max host memory",
        f"max({_HOST_MEMORY} or {_CGROUP_MEMORY}) or max({_HOST_MEMORY})",
        "Memory of the fullest machine. Good: below 90 %; above, the kernel may kill the trainer"
        " without a word.",
        "percentunit",
        rising(MEMORY_WARNING, health.MEMORY_CRITICAL),
    ),
    tile(
        "CPU",
        f"max({_host('cpu_utilization_ratio')})",
        "Busiest machine's share of CPU time that was not idle. 100 % with an idle GPU: the data"
        " loader or Python is the bottleneck.",
        "percentunit",
    ),
    tile(
        "Waiting for data",
        f"max({select('esper_torch_dataloader_wait_ratio')})",
        "Share of step time spent waiting for data. Good: below 10 %; above 30 % more workers or a"
        " cache pay off.",
        "percentunit",
        rising(0.1, 0.3),
    ),
)

HOSTS = (
    series(
        "Host memory",
        (
            Target(_HOST_MEMORY, "{{instance}}"),
            Target(_CGROUP_MEMORY, "container {{instance}}"),
        ),
        "Share of memory in use, of the machine and of what the container may use. Good: below"
        " 90 %. At the container's limit the kernel kills without a word.",
        unit="percentunit",
        maximum=1.0,
        bounds=lines((health.MEMORY_CRITICAL, BAD)),
    ),
    series(
        "CPU and load",
        (
            Target(_host("cpu_utilization_ratio"), "busy {{instance}}"),
            Target(f"{_host('load5')} / {_host('cpus')}", "load a CPU {{instance}}"),
        ),
        "Share of CPU time that was not idle, and load for each CPU. Good: load below 1.",
        unit="percentunit",
    ),
    series(
        "Disk free",
        Target(
            by(
                "min",
                (*HOST, "directory"),
                of_the_processes(select("esper_host_disk_free_bytes", PROCESS)),
            ),
            "{{directory}} {{instance}}",
        ),
        "Space left where telemetry, checkpoints and state are written. Good: more than the next"
        " checkpoints need. A full disk ends a run.",
        unit="bytes",
    ),
    series(
        "Memory of the process",
        Target(
            by("max", HOST, of_the_processes(select("process_resident_memory_bytes", PROCESS))),
            "{{instance}}",
        ),
        "Resident memory of the training's process. Good: level. A steady climb is a leak.",
        unit="bytes",
    ),
    series(
        "CPU of the process",
        Target(
            by("max", HOST, of_the_processes(rate(select("process_cpu_seconds_total", PROCESS)))),
            "{{instance}}",
        ),
        "CPU seconds a second of the training's process; 1 is one core. Exactly 1 with an idle GPU:"
        " one Python thread is the bottleneck.",
        unit="short",
    ),
    series(
        "Swap and kernel kills",
        (
            Target(_host("swap_used_bytes"), "swap {{instance}}"),
            Target(
                grown("esper_host_cgroup_oom_kills_total", HOST, PROCESS),
                "killed {{instance}}",
            ),
        ),
        "Swap in use, and processes of the container that the kernel's OOM killer ended."
        " Good: no swap, no kills.",
        unit="bytes",
        overrides=(
            Override(
                "/^killed /", (("unit", "short"), ("custom.axisPlacement", "right")), regex=True
            ),
        ),
    ),
)

ROWS = (
    Row("Is the machine healthy?", (*in_lines(TILES), GPUS)),
    Row("GPUs", GPU_PANELS),
    Row("torch", TORCH),
    Row("Where the time goes", TIMES),
    Row("Host and process", HOSTS),
)

DASHBOARD = Dashboard(
    uid="esper-gpu",
    title="esper · GPU and infrastructure",
    description="GPUs, torch's memory and compiler, times by phase, host, container and process.",
    rows=ROWS,
    variables=(
        JOB,
        CLUSTER,
        replace(RUNS, all=True),
        GROUP,
        INSTANCE,
        Variable(
            name="gpu",
            label="GPU",
            query=f"label_values({select('esper_gpu_info', PROCESS)}, gpu)",
            description="Number of the GPU on its machine.",
            sort=3,
        ),
    ),
    annotations=(alerts(), *run_marks(SCOPE)),
)
