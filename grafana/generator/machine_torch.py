"""What torch and the trainer take: memory, compiler, time by phase."""

from __future__ import annotations

from grafana.generator.look import BAD, GOOD, NEUTRAL, WARNING, lines, value, values
from grafana.generator.model import Override, Target
from grafana.generator.panels import RUN_NAME, series, timeline
from grafana.generator.queries import (
    RUN,
    by,
    events,
    mean_of_histogram,
    quantile,
    rate,
    select,
    state_number,
    total,
    worst,
)

from esper_exporter import health

SCALER_STATES = {"growing": 1, "stable": 2, "decaying": 3}

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
