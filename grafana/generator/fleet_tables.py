"""The runs of a fleet and the alerts that fire, the worst first."""

from __future__ import annotations

from grafana.generator.fleet_queries import (
    LATCHED_HEADS,
    LATCHED_SOURCES,
    OTHERS,
    RUN_FIRING,
    SCORE,
    STATE,
    _all,
    _last,
)
from grafana.generator.links import PAGE_LINK, to_board
from grafana.generator.look import (
    BAD,
    GOOD,
    MISSING,
    NEUTRAL,
    RUN_STATES,
    WARNING,
    coded,
    value,
    values,
)
from grafana.generator.model import Json
from grafana.generator.queries import RUN, by, over_range
from grafana.generator.tables import column, table


def _to(uid: str, title: str) -> tuple[Json, ...]:
    """Links of a row's run: to the same time range, and to the time when the run ran."""
    return (
        to_board(uid, f"{title}, this time range", run="Run", group="Group"),
        to_board(
            uid,
            f"{title}, while it ran",
            during=("Started", "Last event"),
            run="Run",
            group="Group",
        ),
    )


RUNS = table(
    "Runs",
    {
        "cluster": "Cluster",
        "run_id": "Run",
        "group_id": "Group",
        "task": "Task",
        "instance": "Page",
    },
    (
        column(
            "Info",
            by(
                "max",
                ("cluster", *RUN, "task"),
                over_range("last_over_time", _all("esper_run_info")),
            ),
        ),
        column("State", STATE, mapping=coded(RUN_STATES), cell="color-background", width=120),
        column(
            "Latches",
            f"{LATCHED_HEADS} + {LATCHED_SOURCES} or {LATCHED_HEADS}",
            mapping=values(value(0, "○ none", GOOD)),
            levels=((None, MISSING), (0.0, GOOD), (1.0, BAD)),
            cell="color-background",
            decimals=0,
            width=85,
        ),
        column(
            "Alerts",
            f"count by (cluster, run_id, group_id) (count by (cluster, run_id, group_id, alertname)"
            f" ({RUN_FIRING}))"
            f" or 0 * {_last('esper_run_start_timestamp_seconds')}",
            mapping=values(value(0, "○ none", GOOD)),
            levels=((None, MISSING), (0.0, GOOD), (1.0, WARNING)),
            decimals=0,
            width=80,
        ),
        column(
            "Progress",
            _last("esper_run_progress_ratio"),
            unit="percentunit",
            cell="gauge",
            levels=((None, NEUTRAL),),
            width=110,
        ),
        column("Episodes", _last("esper_run_episode"), decimals=0, width=85),
        column(
            "Updates",
            _last("esper_tamiyo_updates_total"),
            decimals=0,
            width=80,
        ),
        column("Return", _last("esper_simic_episode_return", "avg"), decimals=2, width=80),
        column(
            "Accuracy",
            _last("esper_tolaria_rolling_accuracy_ratio", "avg"),
            unit="percentunit",
            decimals=1,
            width=85,
        ),
        column(
            "Best",
            _last("esper_simic_best_run_peak_accuracy_ratio"),
            unit="percentunit",
            decimals=1,
            width=75,
        ),
        column(
            "Started",
            f"1000 * {_last('esper_run_start_timestamp_seconds')}",
            unit="dateTimeAsLocal",
            width=180,
        ),
        column("Score", SCORE),
        column(
            "Last event",
            f"1000 * {_last('esper_run_last_event_timestamp_seconds')}",
            unit="dateTimeFromNow",
            width=125,
        ),
    ),
    "One row for each run of the time range, the ones in trouble first; a click on its name leads"
    " to it. Good: running or"
    " finished, no latch, no alert, a last event seconds ago. 'gone' is a run that stopped"
    " reporting without a word; the values are then the last it reported. Return, accuracy and"
    " progress are those of the last batch.",
    height=14,
    hidden=("Info", "Score"),
    worst_first="Score",
    key_properties={
        "Run": (
            (
                "links",
                [
                    *_to("esper-heads", "Action heads"),
                    *_to("esper-policy", "Policy"),
                    *_to("esper-envs", "Environments"),
                    *_to("esper-gpu", "GPUs and host"),
                    *_to("esper-run", "Everything of the run"),
                ],
            ),
            ("custom.width", 230),
        ),
        "Group": (("custom.width", 80),),
        "Task": (("custom.width", 110),),
        "Page": (("custom.width", 130), ("links", [PAGE_LINK])),
    },
    order=("Run", "State", "Latches", "Alerts"),
)

ALERTS = table(
    "Firing alerts",
    {
        "alertname": "Alert",
        "severity": "Severity",
        "run_id": "Run",
        "head": "Head",
        "source": "Source",
        "reason": "Reason",
        "gpu": "GPU",
        "instance": "Instance",
    },
    (
        column(
            "Count",
            f"count by (alertname, severity, run_id, head, source, reason) ({RUN_FIRING})"
            f" or count by (alertname, severity, instance, gpu) ({OTHERS})",
        ),
    ),
    "Alerts of esper that fire at the end of the time range. Good: an empty table. Each alert has a"
    " runbook of its name under alerts/runbooks.",
    width=24,
    height=8,
    hidden=("Count",),
    key_properties={
        "Severity": (
            (
                "mappings",
                [
                    values(
                        value("critical", "▲ critical", BAD), value("warning", "● warning", WARNING)
                    )
                ],
            ),
            ("custom.cellOptions", {"type": "color-text"}),
            ("custom.width", 105),
        ),
        "Alert": (("custom.width", 240),),
        "Head": (
            ("custom.width", 80),
            ("links", [to_board("esper-heads", "This head", run="Run", head="Head")]),
        ),
        "GPU": (
            ("custom.width", 60),
            ("links", [to_board("esper-gpu", "This GPU", instance="Instance", gpu="GPU")]),
        ),
        "Instance": (
            ("links", [to_board("esper-exporter", "Exporter", instance="Instance"), PAGE_LINK]),
        ),
        "Run": (
            ("custom.width", 230),
            (
                "links",
                [
                    to_board("esper-heads", "Action heads", run="Run"),
                    to_board("esper-policy", "Policy", run="Run"),
                ],
            ),
        ),
    },
    sort=(("Severity", False),),
)
