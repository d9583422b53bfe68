"""The action heads over time."""

from __future__ import annotations

from grafana.generator.head_queries import HEAD, HEAD_NAME, OF_HEADS, STATE_NUMBERS
from grafana.generator.look import (
    BAD,
    HEAD_COLORS,
    HEAD_STATES,
    WARNING,
    coded,
    lines,
)
from grafana.generator.model import Panel, Target
from grafana.generator.panels import RUN_NAME, series, timeline
from grafana.generator.queries import (
    RUN,
    by,
    events,
    over_range,
    select,
    so_far,
    state_number,
    worst,
)
from grafana.generator.tables import column, table

from esper_exporter import health


def _per_head(
    title: str, name: str, aggregation: str, description: str, *, unit: str, **more: object
) -> Panel:
    target = Target(worst(aggregation, name, "head", scope=OF_HEADS), HEAD_NAME)
    return series(
        title,
        target,
        description,
        unit=unit,
        colors=HEAD_COLORS,
        **more,  # type: ignore[arg-type]
    )


OVER_TIME = (
    timeline(
        "Head states",
        state_number(f"{HEAD}_state", "state", STATE_NUMBERS, "head", scope=OF_HEADS),
        HEAD_NAME,
        "The state of each head after each update, by gradient norm and entropy. Good: healthy or"
        " indeterminate. Look at what changed first; a head that stays dead no longer learns.",
        coded(HEAD_STATES),
        height=9,
    ),
    _per_head(
        "Entropy given a choice",
        f"{HEAD}_choice_entropy_ratio",
        "min",
        "Entropy of each head as a share of its maximum, forced steps left out. Good: above 0.5,"
        " falling slowly as the policy learns. At 0.25 and below it collapses.",
        unit="percentunit",
        maximum=1.0,
        bounds=lines((health.HEAD_ENTROPY_CRITICAL, BAD), (health.HEAD_ENTROPY_WARNING, WARNING)),
    ),
    _per_head(
        "Gradient norm by head",
        f"{HEAD}_grad_norm",
        "max",
        "Gradient norm of each head in the last update, on a logarithmic axis. Good: 0.1 to 2."
        " Below 0.01 a head is dead, above 5 it explodes. What falls below 0.001 leaves the chart.",
        unit="short",
        log=True,
        minimum=0.001,
        bounds=lines(
            (health.HEAD_GRAD_NORM_DEAD, BAD),
            (health.HEAD_GRAD_NORM_LOW, WARNING),
            (health.HEAD_GRAD_NORM_HIGH, WARNING),
            (health.HEAD_GRAD_NORM_EXPLODING, BAD),
        ),
    ),
    _per_head(
        "Largest ratio by head",
        f"{HEAD}_ratio_max",
        "max",
        "Largest probability ratio of each head. Good: within 0.8 and 1.2. Above 1.5 an update"
        " moved the head too far. Exactly 1 with one inner epoch an update.",
        unit="short",
        decimals=2,
        soft_maximum=1.6,
        bounds=lines(
            (health.HEAD_RATIO_CRITICAL[0], BAD),
            (health.HEAD_RATIO_WARNING[0], WARNING),
            (health.HEAD_RATIO_WARNING[1], WARNING),
            (health.HEAD_RATIO_CRITICAL[1], BAD),
        ),
    ),
)

MORE_HEADS = (
    _per_head(
        "KL by head",
        f"{HEAD}_kl_nats",
        "max",
        "KL divergence of each head from before the update. Good: small and even; one head far"
        " above the others drifts alone. Absent where the trainer does not report it.",
        unit="suffix: nats",
    ),
    _per_head(
        "Clipped by head",
        f"{HEAD}_clipped_ratio",
        "max",
        "Share of each head's samples that PPO clipped. Good: below 25 %.",
        unit="percentunit",
        soft_maximum=0.35,
        bounds=lines((health.CLIP_FRACTION_WARNING, WARNING), (health.CLIP_FRACTION_CRITICAL, BAD)),
    ),
    _per_head(
        "Steps with a choice",
        f"{HEAD}_learnable_ratio",
        "min",
        "Share of steps in which each head could choose. Near 0 a head sees too few steps to learn"
        " from, and its entropy says little.",
        unit="percentunit",
        maximum=1.0,
    ),
    _per_head(
        "Steps that mattered",
        f"{HEAD}_active_ratio",
        "min",
        "Share of steps in which each head mattered for what was done: blueprint only when"
        " germinating, and so on. Absent where the trainer does not report it.",
        unit="percentunit",
        maximum=1.0,
    ),
    series(
        "Non-finite updates by head",
        Target(
            events(f"{HEAD}_nonfinite_updates_total", "head", "kind", scope=OF_HEADS) + " > 0",
            f"{{{{head}}}} {{{{kind}}}} {RUN_NAME}",
        ),
        "Policy updates in which a head was NaN or Inf, skipped ones included. Good: empty.",
        unit="short",
        bars=True,
        fill=80,
        colors=HEAD_COLORS,
    ),
    table(
        "Non-finite parts",
        {"run_id": "Run", "group_id": "Group", "source": "Part"},
        (
            column(
                "Updates",
                so_far("esper_tamiyo_nonfinite_updates_total", "source") + " > 0",
                decimals=0,
            ),
            column(
                "First",
                "1000 * "
                + by(
                    "min",
                    (*RUN, "source"),
                    over_range(
                        "last_over_time", select("esper_tamiyo_nonfinite_first_timestamp_seconds")
                    ),
                ),
                unit="dateTimeAsLocal",
                width=165,
            ),
            column(
                "Last",
                "1000 * "
                + by(
                    "max",
                    (*RUN, "source"),
                    over_range(
                        "last_over_time", select("esper_tamiyo_nonfinite_last_timestamp_seconds")
                    ),
                ),
                unit="dateTimeAsLocal",
                width=165,
            ),
        ),
        "Parts of the training other than heads that were NaN or Inf: in how many updates, since"
        " when. Good: an empty table. The first in time is nearest to the cause.",
        width=8,
        height=8,
        sort=(("First", False),),
    ),
)
