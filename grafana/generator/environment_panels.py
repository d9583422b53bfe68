"""Names and panels of environments."""

from __future__ import annotations

from grafana.generator.look import (
    STAGES,
)
from grafana.generator.model import Override, Panel, Target
from grafana.generator.panels import RUN_NAME, series
from grafana.generator.queries import (
    OF_ENV,
    RUN,
    at_the_end,
    few,
    worst,
)
from grafana.generator.tiles import vital

WORST_SIX = " Shown are the six worst at the end, and the median of all."
ENV_NAME = f"env {{{{env_id}}}} {RUN_NAME}"
SLOT_NAME = f"{{{{slot_id}}}} env {{{{env_id}}}} {RUN_NAME}"
_TENS = (("1 5 9", [10, 6]), ("2 6", [2, 5]), ("3 7", [12, 4, 2, 4]))
TELL_APART = (
    *(
        Override(
            rf"/^env \d*[{digits.replace(' ', '')}]\d( |$)/",
            (("custom.lineStyle", {"fill": "dash", "dash": dashes}),),
            regex=True,
        )
        for digits, dashes in _TENS
    ),
    Override(
        "/^median( |$)/",
        (("color", {"mode": "fixed", "fixedColor": "text"}), ("custom.lineWidth", 2)),
        regex=True,
    ),
)
"""A colour for an environment's units, a dash for its tens. The median is thick, of text colour."""
STAGE_NUMBERS = {stage: number for stage, (number, _, _) in STAGES.items()}


def _tile(title: str, expr: str, description: str, unit: str, **more: object) -> Panel:
    options = {"decimals": 0, **more}
    return vital(title, expr, description, unit=unit, **options)  # type: ignore[arg-type]


def _per_env(
    title: str, name: str, description: str, unit: str, aggregation: str = "avg", **more: object
) -> Panel:
    """The six environments that are worst at the end, and the median of all."""
    each = worst(aggregation, name, "env_id", scope=OF_ENV)
    high_is_bad = name.endswith(("_loss", "_growth_ratio"))
    lines = few(each, at_the_end(name, OF_ENV, "" if high_is_bad else "-"))
    middle = f"quantile by ({', '.join(RUN)}) (0.5, {each})"
    return series(
        title,
        (Target(lines, ENV_NAME), Target(middle, f"median {RUN_NAME}")),
        description + WORST_SIX,
        unit=unit,
        things=True,
        overrides=TELL_APART,
        **more,  # type: ignore[arg-type]
    )
