"""What is asked of all runs."""

from __future__ import annotations

from grafana.generator.look import (
    RUN_STATES,
)
from grafana.generator.queries import (
    EVERY_RUN,
    RUN,
    by,
    over_range,
    select,
)


def _all(name: str, /, **labels: str) -> str:
    return select(name, EVERY_RUN, **labels)


def _last(name: str, aggregation: str = "max", *more: str, **labels: str) -> str:
    """A gauge as it stood last in the time range, so that ended runs keep their row."""
    return by(aggregation, (*RUN, *more), over_range("last_over_time", _all(name, **labels)))


def _number(state: str) -> int:
    return RUN_STATES[state][0]


STATE = (
    f"{_number('failed')} * ({_last('esper_run_failed')} == 1)"
    f" or {_number('finished')} * ({_last('esper_run_finished')} == 1)"
    f" or {_number('running')} * (max by (run_id, group_id) ({_all('esper_run_active')}) == 1)"
    f" or {_number('superseded')} + (max by (run_id, group_id) ({_all('esper_run_active')}) == 0)"
    f" or {_number('gone')} + 0 * {_last('esper_run_finished')}"
)
"""How a run is, at the end of the time range. Gone: it said neither that it finished nor failed."""

STATE_OVER_TIME = (
    f"{_number('failed')} * (max by (run_id, group_id) ({_all('esper_run_failed')}) == 1)"
    f" or {_number('finished')} * (max by (run_id, group_id) ({_all('esper_run_finished')}) == 1)"
    f" or {_number('running')} * (max by (run_id, group_id) ({_all('esper_run_active')}) == 1)"
    f" or {_number('superseded')} + (max by (run_id, group_id) ({_all('esper_run_active')}) == 0)"
)

LATCHED_HEADS = by(
    "sum",
    RUN,
    by(
        "max",
        (*RUN, "head", "kind"),
        over_range("max_over_time", _all("esper_tamiyo_head_nonfinite_latched")),
    ),
)
LATCHED_SOURCES = by(
    "sum",
    RUN,
    by(
        "max",
        (*RUN, "source"),
        over_range("max_over_time", _all("esper_tamiyo_nonfinite_latched")),
    ),
)
FIRING = 'ALERTS{alertstate="firing",alertname=~"Esper.*",alertname!="EsperWatchdog",job=~"$job|"}'
RUN_FIRING = 'ALERTS{alertstate="firing",alertname=~"Esper.*",run_id!="",job=~"$job|"}'
