"""What is asked of all runs."""

from __future__ import annotations

from grafana.generator.look import (
    RUN_STATES,
)
from grafana.generator.queries import (
    EVERY_RUN,
    RUN,
    WHERE,
    by,
    over_range,
    select,
)


def _all(name: str, /, **labels: str) -> str:
    return select(name, EVERY_RUN, **labels)


def _last(name: str, aggregation: str = "max", *more: str, **labels: str) -> str:
    """A gauge as it stood last in the time range, so that ended runs keep their row."""
    return by(
        aggregation, ("cluster", *RUN, *more), over_range("last_over_time", _all(name, **labels))
    )


def _number(state: str) -> int:
    return RUN_STATES[state][0]


_OF_RUN = "cluster, run_id, group_id"


def _now(name: str, aggregation: str = "max") -> str:
    return f"{aggregation} by ({_OF_RUN}) ({_all(name)})"


_MEAN_INTERVAL = (
    f"({_now('esper_tamiyo_last_update_timestamp_seconds')}"
    f" - {_now('esper_run_start_timestamp_seconds', 'min')})"
    f" / ({_now('esper_tamiyo_updates_total')} > 0)"
)
GOING_ON = (
    f"({_now('esper_run_active')} == 1 unless {_now('esper_run_finished')} == 1"
    f" unless {_now('esper_run_failed')} == 1)"
)
STALLED = (
    f"({GOING_ON} and ("
    f"time() - {_now('esper_tamiyo_last_update_timestamp_seconds')}"
    f" > clamp_min(10 * {_MEAN_INTERVAL}, 300)"
    f" or time() - {_now('esper_run_last_event_timestamp_seconds')} > 600))"
)
"""Runs whose process answers, without an update for ten of their intervals, as EsperRunStalled."""


def _states(failed: str, finished: str) -> str:
    return (
        f"{_number('failed')} * ({failed} == 1)"
        f" or {_number('finished')} * ({finished} == 1)"
        f" or {_number('stalled')} * {STALLED}"
        f" or {_number('running')} * ({_now('esper_run_active')} == 1)"
        f" or {_number('superseded')} + ({_now('esper_run_active')} == 0)"
    )


STATE = (
    _states(_last("esper_run_failed"), _last("esper_run_finished"))
    + f" or {_number('gone')} + 0 * {_last('esper_run_finished')}"
)
"""How a run is, at the end of the time range. Gone: it said neither that it finished nor failed."""

STATE_OVER_TIME = _states(_now("esper_run_failed"), _now("esper_run_finished"))

_ROW = ("cluster", *RUN)
LATCHED_HEADS = by(
    "sum",
    _ROW,
    by(
        "max",
        (*_ROW, "head", "kind"),
        over_range("max_over_time", _all("esper_tamiyo_head_nonfinite_latched")),
    ),
)
LATCHED_SOURCES = by(
    "sum",
    _ROW,
    by(
        "max",
        (*_ROW, "source"),
        over_range("max_over_time", _all("esper_tamiyo_nonfinite_latched")),
    ),
)
_ALERTS = 'ALERTS{alertstate="firing",alertname=~"Esper.*",cluster=~"$cluster|",job=~"$job|"'
RUN_FIRING = _ALERTS + ',severity!="none",run_id!=""}'
FIRING = _ALERTS + ',severity!="none"}'
"""What an alert's labels are for is silenced elsewhere: severity none is no alert of anyone's."""

OTHERS = _ALERTS + ',severity!="none",run_id=""}'
TOLD = (
    f"(count by (cluster, alertname, run_id, group_id) ({RUN_FIRING})"
    f" or count by (cluster, alertname, instance, gpu) ({OTHERS}))"
)
"""Alerts as a person counts them: each once for a run, or for an instance and its GPU."""

WATCHED = 'ALERTS{alertname="EsperWatchdog",alertstate="firing",cluster=~"$cluster|"}'
"""Fires always: where it does not, no rule is evaluated, and no alert is not a good sign."""

PER_TARGET = "cluster, job, instance"
_TARGETS = f"up{{{WHERE}}}"
_EXPORTERS = (
    f"max by ({PER_TARGET}) (last_over_time(esper_exporter_build_info{{{WHERE}}}[$__range]))"
    f' or max by ({PER_TARGET}) (up{{{WHERE},job=~".*esper.*"}})'
)
EXPORTERS = f"(max by ({PER_TARGET}) ({_TARGETS}) and ({_EXPORTERS}))"
"""Whether each target that has served an exporter, or is of an esper job, answers a server."""

SCORE = (
    f"1000 * (({LATCHED_HEADS} + {LATCHED_SOURCES} or {LATCHED_HEADS}) > bool 0)"
    f" + 1000 * ({_last('esper_run_failed')} or 0 * {LATCHED_HEADS})"
    f" + 10 * ({STATE})"
    f" + clamp_max(count by ({_OF_RUN}) ({RUN_FIRING}) or 0 * {LATCHED_HEADS}, 9)"
)
"""The higher, the sooner a person should look: latched or failed, then the state, then alerts."""
