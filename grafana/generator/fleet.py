"""Fleet: every run, and whether a person has to get up."""

from __future__ import annotations

from grafana.generator.fleet_queries import (
    EXPORTERS,
    FIRING,
    GOING_ON,
    LATCHED_HEADS,
    LATCHED_SOURCES,
    STALLED,
    STATE_OVER_TIME,
    TOLD,
    WATCHED,
    _all,
    _last,
)
from grafana.generator.fleet_tables import ALERTS, RUNS
from grafana.generator.frame import of_all_runs
from grafana.generator.look import (
    BAD,
    RUN_STATES,
    WARNING,
    any_is_bad,
    coded,
    value,
    values,
)
from grafana.generator.model import Panel, Row, Target
from grafana.generator.panels import RUN_NAME, series, timeline
from grafana.generator.queries import (
    EVERY_RUN,
    RUN,
    by,
    events,
    rates,
)
from grafana.generator.tiles import in_lines, vital


def _tile(title: str, expr: str, description: str, **more: object) -> Panel:
    options = {"unit": "short", "decimals": 0, "width": 4, "legend": title, **more}
    return vital(title, expr, description, **options)  # type: ignore[arg-type]


TILES = (
    _tile(
        "Runs going on",
        f"count({GOING_ON})",
        "Runs whose process answers and that have neither finished nor failed. n/a means"
        " that none is scraped now: look at the run table for what became of them.",
        width=3,
    ),
    _tile(
        "Runs stalled",
        f"count({STALLED}) or 0 * count({GOING_ON})",
        "Runs whose process answers, but whose policy was not updated for ten of its intervals,"
        " five minutes at least, or that sent no event for ten minutes. Good: 0."
        " EsperRunStalled and EsperTelemetryStale have the runbooks.",
        levels=any_is_bad(WARNING),
        width=3,
    ),
    _tile(
        "Runs with a latch",
        f"count({LATCHED_HEADS} > 0 or {LATCHED_SOURCES} > 0) or 0 * count({LATCHED_HEADS})",
        "Runs of the time range in which a head, a gradient, a value or an observation was NaN or"
        " Inf. Good: 0. Otherwise open the run's action heads: which head, which kind, since when."
        " A latch stays until the run ends, so a trainer that died of it is still counted.",
        levels=any_is_bad(),
    ),
    _tile(
        "Runs failed",
        f"count({_last('esper_run_failed')} == 1) or 0 * count({_last('esper_run_failed')})",
        "Runs of the time range that ended with an exception or a signal. Good: 0. The run table"
        " names them, EsperRunFailed has the runbook.",
        width=3,
        levels=any_is_bad(),
    ),
    _tile(
        "Runs gone",
        f"count({_last('esper_run_finished')} == 0"
        f" unless {_last('esper_run_failed')} == 1"
        f" unless max by (cluster, run_id, group_id) ({_all('esper_run_finished')}))"
        f" or 0 * count({_last('esper_run_finished')})",
        "Runs of the time range that no longer report, and had said neither that they finished nor"
        " that they failed: SIGKILL, out of memory, the machine or the network. Backfilled runs"
        " count here too, for a recording does not tell how it ended. Good: 0.",
        width=3,
        levels=any_is_bad(WARNING),
    ),
    _tile(
        "Alerts firing",
        f"count({TOLD}) or 0 * count({WATCHED})",
        "Alerts of esper that fire now, warnings included, each once for a run. Good: 0. The table"
        " below says which and links to the run. n/a: EsperWatchdog does not fire, so no rule is"
        " evaluated, and nothing would be reported.",
        levels=any_is_bad(),
    ),
    _tile(
        "Exporters down",
        f"count({EXPORTERS} == 0) or 0 * count({EXPORTERS})",
        "Exporters that did not answer the last scrape. Good: 0. A process that ended without"
        " removing its target file is down too: esper-exporter prune. n/a: there is no exporter.",
        levels=any_is_bad(WARNING),
    ),
)

ROWS = (
    Row("Is it healthy?", (*in_lines(TILES), RUNS)),
    Row(
        "What happened",
        (
            ALERTS,
            timeline(
                "Runs over time",
                STATE_OVER_TIME,
                RUN_NAME,
                "The state of each run. Good: running, then finished. A bar that breaks off means"
                " that the run stopped reporting; where a gap lies between, nothing was scraped.",
                coded(RUN_STATES),
                width=14,
                height=12,
            ),
            timeline(
                "Alerts over time",
                f"max by (alertname) ({FIRING})",
                "{{alertname}}",
                "When which alert fired, for any run. Good: empty. What began first is the likely"
                " cause; the alert's runbook says what to do.",
                values(value(1, "firing", BAD)),
                width=10,
                height=12,
            ),
        ),
    ),
    Row(
        "Progress and return",
        (
            series(
                "Progress",
                Target(by("max", RUN, _all("esper_run_progress_ratio")), RUN_NAME),
                "Share of each run's batches that are done. Good: a straight line. A flat one is a"
                " run that hangs: look at EsperRunStalled.",
                unit="percentunit",
                maximum=1.0,
                step=True,
                things=True,
            ),
            series(
                "Mean return",
                Target(by("avg", RUN, _all("esper_simic_episode_return")), RUN_NAME),
                "Mean return of the last batch's episodes. Good: rising. Runs of different reward"
                " modes cannot be compared.",
                unit="short",
                things=True,
            ),
            series(
                "Rolling accuracy",
                Target(by("avg", RUN, _all("esper_tolaria_rolling_accuracy_ratio")), RUN_NAME),
                "Rolling mean of the batches' final accuracies. Good: rising towards what the task"
                " allows.",
                unit="percentunit",
                decimals=1,
                things=True,
            ),
        ),
    ),
    Row(
        "Throughput",
        (
            series(
                "Policy updates a minute",
                Target(f"60 * {rates('esper_tamiyo_updates_total', scope=EVERY_RUN)}", RUN_NAME),
                "Good: steady. A fall to 0 with the process alive is a stalled trainer.",
                unit="opm",
                things=True,
            ),
            series(
                "Host epochs a second",
                Target(rates("esper_tolaria_epochs_total", scope=EVERY_RUN), RUN_NAME),
                "Epochs of host training a second, all environments. Good: steady. A slow decline"
                " goes with growing networks; look at the phases on the GPU dashboard.",
                unit="ops",
                things=True,
            ),
            series(
                "Events a second",
                Target(rates("esper_run_events_total", scope=EVERY_RUN), RUN_NAME),
                "Telemetry events that came in. 0 with a live process means that the trainer is"
                " silent or its hub drops events.",
                unit="eps",
                things=True,
            ),
        ),
    ),
    Row(
        "Faults",
        (
            series(
                "Skipped updates",
                Target(
                    events("esper_tamiyo_updates_skipped_total", "reason", scope=EVERY_RUN),
                    f"{{{{reason}}}} {RUN_NAME}",
                ),
                "Policy updates thrown away: nonfinite ones, or ones that a rollback left without"
                " data. Good: none. The real system gives up after three in a row.",
                unit="short",
                bars=True,
                fill=80,
            ),
            series(
                "Exploding gradients",
                Target(
                    events("esper_tamiyo_gradient_explosions_total", scope=EVERY_RUN),
                    RUN_NAME,
                ),
                "Updates with a gradient norm above 10 before clipping, counted one by one. Now and"
                " then is fine; more than 5 % of updates is EsperGradientExplosion.",
                unit="short",
                bars=True,
                fill=80,
            ),
            series(
                "Rollbacks",
                Target(
                    events("esper_tolaria_rollbacks_total", "reason", scope=EVERY_RUN),
                    f"{{{{reason}}}} {RUN_NAME}",
                ),
                "Emergency rollbacks of the governor. A few while a policy learns; a steady stream"
                " means that the policy grows what breaks the hosts.",
                unit="short",
                bars=True,
                fill=80,
            ),
        ),
        closed=True,
    ),
)

DASHBOARD = of_all_runs(
    "esper-fleet",
    "esper · Fleet",
    "Every run that this Prometheus knows: state, progress, return, latches and firing alerts.",
    ROWS,
)
