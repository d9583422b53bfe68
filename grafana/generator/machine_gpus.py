"""The GPUs: a table of now, and each vital over time."""

from __future__ import annotations

from grafana.generator.links import PAGE_LINK, to_board
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
from grafana.generator.model import Json, Panel, Target
from grafana.generator.panels import series, timeline
from grafana.generator.queries import PROCESS, SCOPE, by, once, over_range, rate, select
from grafana.generator.tables import column, table

from esper_exporter import health

PROCESSES = (
    "max by (cluster, job, instance) ("
    f'{{__name__=~"esper_(run_start_timestamp_seconds|exporter_build_info)",{SCOPE}}})'
)
"""The processes of the chosen runs; with All those without a run, too."""

USED = (
    f"max by (uuid) ({select('esper_gpu_used_by_run')} == 1)"
    f" or max by (uuid) ({select('esper_gpu_info', PROCESS)}"
    f" and on (cluster, job, instance) {PROCESSES})"
)

GPU = ("gpu", "uuid")
"""A GPU is one thing however many processes tell of it."""

OF_GPU = PROCESS + ',gpu=~"$gpu"'
GPU_NAME = "GPU {{gpu}} {{uuid}}"
HOT, TOO_HOT = 80.0, 90.0
"""Degrees from which data-centre GPUs are warm, and from which they slow down."""

SHORT_UUID: Json = {
    "id": "renameByRegex",
    "options": {"regex": "^(.*)(?:GPU|MIG)-[\\w-]*([\\w-]{4})(.*)$", "renamePattern": "$1$2$3"},
}
"""The last four digits tell GPUs of several nodes apart."""


def gpu(name: str, aggregation: str = "max", *labels: str, **matchers: str) -> str:
    """A GPU's gauge, once for each GPU."""
    return by(
        aggregation, (*GPU, *labels), of_the_runs(select(f"esper_gpu_{name}", OF_GPU, **matchers))
    )


def of_the_runs(inner: str) -> str:
    """Samples of the GPUs that the chosen runs use, or that their processes report."""
    return f"{inner} and on (uuid) ({USED})"


def gpu_events(name: str, *labels: str, **matchers: str) -> str:
    """A GPU's counter between two points, once however many processes report it."""
    selector = select(f"esper_gpu_{name}_total", OF_GPU, **matchers)
    now = by("max", (*GPU, *labels), f"last_over_time({selector}[$__interval])")
    before = by("max", (*GPU, *labels), f"last_over_time({selector}[1h] offset $__interval)")
    return "(" + of_the_runs(f"(({now} - ({before} or 0 * {now})) >= 0 or {now})") + ")"


XIDS = by(
    "sum",
    GPU,
    by(
        "max",
        (*GPU, "xid"),
        of_the_runs(over_range("last_over_time", select("esper_gpu_xid_errors_total", OF_GPU))),
    ),
)
UNCORRECTED = by(
    "max",
    GPU,
    of_the_runs(
        over_range(
            "last_over_time",
            select("esper_gpu_ecc_errors_total", OF_GPU, kind="uncorrected", scope="volatile"),
        )
    ),
)
SLOWED = gpu(
    "throttled",
    reason="hw_slowdown|hw_thermal_slowdown|hw_power_brake_slowdown"
    "|sw_thermal_slowdown|board_limit|reliability",
)
"""What holds clocks down is a fault; a power cap is not, nor is idling."""


def _ours() -> str:
    """Memory of each process once, all of them together."""
    name = "esper_gpu_process_memory_bytes"
    return by("sum", GPU, of_the_runs(once(name, select(name, OF_GPU))))


def _used() -> str:
    return f"{gpu('memory_used_bytes')} / ({gpu('memory_total_bytes')} > 0)"


GPUS = table(
    "GPUs",
    {"instance": "Node", "gpu": "GPU", "name": "Model", "uuid": "UUID"},
    (
        column(
            "Info",
            # One process of those that report a GPU represents its node.
            "topk by (gpu, uuid) (1, "
            + by("max", (*GPU, "name", "instance"), of_the_runs(select("esper_gpu_info", OF_GPU)))
            + ")",
        ),
        column(
            "Score",
            " + ".join(
                f"{weight} * ({trouble} > bool 0 or 0 * {gpu('info')})"
                for weight, trouble in ((10, XIDS), (10, UNCORRECTED), (5, SLOWED))
            )
            + f" + ({_used()} or 0 * {gpu('info')})",
        ),
        column(
            "Busy",
            gpu("utilization_ratio"),
            unit="percentunit",
            decimals=0,
            cell="gauge",
            levels=((None, NEUTRAL),),
            width=150,
        ),
        column(
            "Memory",
            _used(),
            unit="percentunit",
            decimals=0,
            cell="gauge",
            levels=rising(0.8, health.MEMORY_CRITICAL),
            width=150,
        ),
        column("Ours", _ours(), unit="bytes", decimals=1),
        column(
            "Temperature",
            gpu("temperature_celsius"),
            unit="celsius",
            decimals=0,
            levels=rising(HOT, TOO_HOT),
        ),
        column("Power", gpu("power_watts"), unit="watt", decimals=0),
        column("Clock", gpu("sm_clock_hertz"), unit="hertz", decimals=2),
        column(
            "Throttled",
            SLOWED,
            mapping=values(value(0, "○ no", GOOD), value(1, "▼ slowed", BAD)),
            width=95,
        ),
        column(
            "XID errors",
            XIDS,
            decimals=0,
            levels=any_is_bad(),
            mapping=values(value(0, "○ none", GOOD)),
            width=95,
        ),
        column(
            "ECC",
            UNCORRECTED,
            decimals=0,
            levels=any_is_bad(),
            mapping=values(value(0, "○ none", GOOD)),
            width=80,
        ),
        column(
            "Remap failed",
            gpu("row_remap_failed"),
            mapping=values(value(0, "○ no", GOOD), value(1, "● replace", BAD)),
            width=120,
        ),
    ),
    "One row for each GPU, now, the ones in trouble first. Good: busy, memory below 90 %, below"
    " 80 °C, not slowed, no XID and no uncorrected ECC error. XID 48, 63, 64, 74, 79,"
    " 94, 95 mean hardware: take the node out."
    " What the GPU cannot tell is a dash; 'Ours' is the memory of this training.",
    height=11,
    hidden=("Info", "Score"),
    worst_first="Score",
    key_properties={
        "Node": (
            ("custom.width", 230),
            ("links", [to_board("esper-exporter", "Exporter", instance="Node"), PAGE_LINK]),
        ),
        "GPU": (
            ("custom.width", 60),
            ("links", [to_board("esper-gpu", "This GPU", gpu="GPU", instance="Node")]),
        ),
        "Model": (("custom.width", 150),),
        "UUID": (("custom.width", 330),),
    },
    order=(
        "Node",
        "GPU",
        "Model",
        "XID errors",
        "Throttled",
        "ECC",
        "Remap failed",
        "Busy",
        "Memory",
        "Ours",
        "Temperature",
        "Power",
        "Clock",
        "UUID",
    ),
)


def _over(title: str, expr: str, description: str, unit: str, **more: object) -> Panel:
    options = {"shorten": SHORT_UUID, **more}
    return series(title, Target(expr, GPU_NAME), description, unit=unit, **options)  # type: ignore[arg-type]


GPU_PANELS = (
    _over(
        "GPU busy",
        gpu("utilization_ratio"),
        "Share of time in which a kernel ran. Good: high and even while training. Low: the CPU or"
        " the data loader is the bottleneck, see the phases below.",
        "percentunit",
        maximum=1.0,
    ),
    _over(
        "GPU memory",
        _used(),
        "Share of device memory in use, by every process. Good: below 90 %. A climb from episode to"
        " episode is a leak, or networks that grow.",
        "percentunit",
        maximum=1.0,
        bounds=lines((health.MEMORY_CRITICAL, BAD)),
    ),
    _over(
        "Temperature",
        gpu("temperature_celsius"),
        "Good: below 80 °C. From about 90 °C clocks are held down: look at fans, dust, neighbours.",
        "celsius",
        bounds=lines((HOT, WARNING), (TOO_HOT, BAD)),
    ),
    series(
        "Power",
        (
            Target(gpu("power_watts"), GPU_NAME),
            Target(gpu("power_limit_watts"), f"limit of {GPU_NAME}"),
        ),
        "Power drawn, and the limit. Good: below the limit; at it, clocks are held down, which is"
        " normal under full load.",
        unit="watt",
        shorten=SHORT_UUID,
    ),
    series(
        "Clocks",
        (
            Target(gpu("sm_clock_hertz"), GPU_NAME),
            Target(gpu("sm_clock_max_hertz"), f"highest of {GPU_NAME}"),
        ),
        "Clock of the multiprocessors beside the highest. Good: near it while busy.",
        unit="hertz",
        shorten=SHORT_UUID,
    ),
    series(
        "Held down",
        Target(
            by(
                "max",
                (*GPU, "reason"),
                of_the_runs(rate(select("esper_gpu_throttled_seconds_total", OF_GPU)) + " > 0")
                + " or "
                + of_the_runs(
                    f"avg_over_time({select('esper_gpu_throttled', OF_GPU)}[$__rate_interval]) > 0"
                ),
            ),
            f"{{{{reason}}}} {GPU_NAME}",
        ),
        "Share of time in which clocks were held down, by reason. Good: empty, or power cap only."
        " Thermal or power brake: a matter for the machine's owner.",
        unit="percentunit",
        shorten=SHORT_UUID,
    ),
    series(
        "Errors of the hardware",
        (
            Target(
                gpu_events("xid_errors", "xid") + " > 0",
                f"XID {{{{xid}}}} {GPU_NAME}",
            ),
            Target(
                gpu_events("ecc_errors", "kind", scope="volatile") + " > 0",
                f"ECC {{{{kind}}}} {GPU_NAME}",
            ),
            Target(
                gpu_events("pcie_replays") + " > 0",
                f"PCIe replays {GPU_NAME}",
            ),
            Target(
                gpu_events("nvlink_errors", "kind") + " > 0",
                f"NVLink {{{{kind}}}} {GPU_NAME}",
            ),
        ),
        "What the driver reported between two points. Good: empty. An uncorrected error or an XID"
        " that means hardware: stop, take the node out, restart elsewhere from the checkpoint.",
        unit="short",
        bars=True,
        fill=80,
        shorten=SHORT_UUID,
    ),
    series(
        "PCIe",
        (
            Target(
                gpu("pcie_throughput_bytes", "max", "direction"), f"{{{{direction}}}} {GPU_NAME}"
            ),
        ),
        "Bytes a second over PCIe; only where it was asked for, because measuring takes 40 ms. Near"
        " what the link can do: the transfer is the bottleneck.",
        unit="Bps",
        shorten=SHORT_UUID,
    ),
    timeline(
        "GPU answers",
        f"1 + ({'time() - ' + gpu('last_sample_timestamp_seconds')} > bool 60)",
        GPU_NAME,
        "Whether each GPU still answers the driver. Good: answering. A GPU that is silent for a"
        " minute has hung or fallen off the bus: see XID 79.",
        values(value(1, "● answers", GOOD), value(2, "✕ silent", BAD)),
        width=8,
        shorten=SHORT_UUID,
    ),
)
