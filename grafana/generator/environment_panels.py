"""Names and panels of environments."""

from __future__ import annotations

from grafana.generator.look import (
    STAGES,
)
from grafana.generator.model import Panel, Target
from grafana.generator.panels import (
    RUN_NAME,
    series,
    vital,
)
from grafana.generator.queries import (
    OF_ENV,
    worst,
)

ENV_NAME = f"env {{{{env_id}}}} {RUN_NAME}"
SLOT_NAME = f"{{{{slot_id}}}} env {{{{env_id}}}} {RUN_NAME}"
STAGE_NUMBERS = {stage: number for stage, (number, _, _) in STAGES.items()}


def _tile(title: str, expr: str, description: str, unit: str, **more: object) -> Panel:
    options = {"decimals": 0, **more}
    return vital(title, expr, description, unit=unit, **options)  # type: ignore[arg-type]


def _per_env(
    title: str, name: str, description: str, unit: str, aggregation: str = "avg", **more: object
) -> Panel:
    target = Target(worst(aggregation, name, "env_id", scope=OF_ENV), ENV_NAME)
    return series(title, target, description, unit=unit, **more)  # type: ignore[arg-type]
