"""GPU and infrastructure: what the training runs on, and where its time goes."""

from __future__ import annotations

from dataclasses import replace

from grafana.generator.frame import CLUSTER, GROUP, INSTANCE, JOB, RUNS, alerts, run_marks
from grafana.generator.look import (
    BAD,
    GOOD,
    NEUTRAL,
    WARNING,
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
from grafana.generator.model import Dashboard, Override, Row, Target, Variable
from grafana.generator.panels import RUN_NAME, series, tile, timeline
from grafana.generator.queries import (
    PROCESS,
    RUN,
    SCOPE,
    by,
    events,
    grown,
    mean_of_histogram,
    quantile,
    rate,
    select,
    so_far,
    state_number,
    total,
    worst,
)

from esper_exporter import health

HOST = ("cluster", "instance")
MEMORY_WARNING = 0.8
SCALER_STATES = {"growing": 1, "stable": 2, "decaying": 3}


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

TORCH = (
    series(
        "torch CUDA memory",
        tuple(
            Target(
                by("max", (*RUN, "device"), select(f"esper_torch_memory_{name}_bytes")),
                f"{word} {{{{device}}}} {RUN_NAME}",
            )
            for word, name in {
                "tensors": "allocated",
                "active": "active",
                "reserved": "reserved",
                "inactive": "inactive",
                "peak": "peak",
            }.items()
        ),
        "What torch holds of the device. Good: level from episode to episode. Reserved far above"
        " tensors is fragmentation; absent without CUDA.",
        unit="bytes",
    ),
    series(
        "Fragmentation and retries",
        (
            Target(
                by("max", (*RUN, "device"), select("esper_torch_memory_fragmentation_ratio")),
                f"fragmentation {{{{device}}}} {RUN_NAME}",
            ),
            Target(
                events("esper_torch_memory_allocation_retries_total", "device"),
                f"retries {{{{device}}}} {RUN_NAME}",
            ),
        ),
        "Good: fragmentation below 30 %, no retries. A retry is an allocation that succeeded only"
        " after torch gave memory back: the next one may fail.",
        unit="percentunit",
        bounds=lines((health.FRAGMENTATION_WARNING, WARNING)),
        overrides=(
            Override(
                "/^retries/", (("unit", "none"), ("custom.axisPlacement", "right")), regex=True
            ),
        ),
    ),
    series(
        "torch.compile",
        tuple(
            Target(worst("max", f"esper_torch_compile_{name}"), f"{word} {RUN_NAME}")
            for word, name in {
                "graph breaks": "graph_breaks",
                "recompilations": "recompilations",
                "cache hits": "cache_hits",
                "cache misses": "cache_misses",
                "guard failures": "guard_failures",
            }.items()
        ),
        "Counts so far. Good: flat after the first minutes. Recompilations that go on: shapes"
        " change whenever a seed is grown; absent without torch.compile.",
        unit="short",
        step=True,
    ),
    series(
        "Loss scale (AMP)",
        (
            Target(worst("min", "esper_tamiyo_loss_scale"), f"scale {RUN_NAME}"),
            Target(
                events("esper_tamiyo_amp_overflows_total"),
                f"overflows {RUN_NAME}",
            ),
        ),
        "Good: the scale grows and settles, overflows are rare. A scale that only falls: gradients"
        " overflow, look at the gradient norms. Absent without mixed precision.",
        unit="short",
        overrides=(
            Override(
                "/^overflows/", (("unit", "none"), ("custom.axisPlacement", "right")), regex=True
            ),
        ),
    ),
    timeline(
        "AMP scaler",
        state_number("esper_torch_grad_scaler_state", "state", SCALER_STATES),
        RUN_NAME,
        "What the loss scale did in each update. Good: growing or stable. Decaying for long: see"
        " the loss scale.",
        values(
            value(1, "↗ growing", GOOD), value(2, "→ stable", NEUTRAL), value(3, "↘ decaying", BAD)
        ),
        width=8,
    ),
    series(
        "Memory warnings",
        (
            Target(
                events("esper_torch_memory_warnings_total"),
                f"warnings {RUN_NAME}",
            ),
            Target(
                events("esper_torch_memory_ooms_total"),
                f"out of memory {RUN_NAME}",
            ),
        ),
        "Counted one by one between two points. Good: none.",
        unit="short",
        bars=True,
        fill=80,
    ),
)


def _share(name: str) -> str:
    """Seconds a second that a phase takes."""
    return total(f"{name}_sum", ("phase",), rate)


TIMES = (
    series(
        "Time by phase of a step",
        Target(_share("esper_torch_phase_duration_seconds"), "{{phase}}"),
        "Seconds a second in each phase, the chosen runs together. Good: backward about twice"
        " forward, little transfer. Absent where the trainer does not time them.",
        unit="s",
        stack="normal",
        width=8,
    ),
    series(
        "Slowest steps by phase",
        Target(
            quantile(0.95, "esper_torch_phase_duration_seconds", "phase"),
            f"{{{{phase}}}} {RUN_NAME}",
        ),
        "The time that 95 % of each phase stay below. Good: even. A spike that comes again is"
        " recompilation or a checkpoint.",
        unit="s",
    ),
    series(
        "Time by phase of the trainer",
        Target(_share("esper_simic_phase_duration_seconds"), "{{phase}}"),
        "Seconds a second in each of the trainer's own phases. Good: most of it is training. Look"
        " here first when throughput falls.",
        unit="s",
        stack="normal",
    ),
    series(
        "Host epoch times",
        Target(
            mean_of_histogram("esper_tolaria_step_duration_seconds", "phase"),
            f"{{{{phase}}}} {RUN_NAME}",
        ),
        "Mean time of the phases of the hosts' epochs. Good: even. Absent where the trainer does"
        " not report it.",
        unit="s",
        width=12,
    ),
    series(
        "Python in the trainer's phases",
        Target(
            total("esper_simic_phase_cpu_seconds_total", ("phase",), rate),
            "{{phase}}",
        ),
        "CPU seconds a second that Python spends in each phase. Near the phase's own time: Python"
        " is what it waits for.",
        unit="s",
        stack="normal",
        width=12,
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
        decimals=2,
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
        "Swap in use, and processes of the container that the kernel killed for want of memory."
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
    Row("Is the machine healthy?", (*(replace(t, width=4, height=3) for t in TILES), GPUS)),
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
