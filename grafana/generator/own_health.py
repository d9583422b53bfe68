"""Exporter: whether it is well itself, what it costs, and how many series it makes."""

from __future__ import annotations

from collections.abc import Callable

from grafana.generator.frame import of_processes
from grafana.generator.links import PAGE_LINK
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
from grafana.generator.model import Panel, Row, Target
from grafana.generator.panels import heatmap, ranking, series, timeline
from grafana.generator.queries import (
    PROCESS,
    buckets,
    by,
    grown,
    over_range,
    rate,
    select,
    total,
)
from grafana.generator.tables import column, table
from grafana.generator.tiles import in_lines, tile

EACH = ("cluster", "job", "instance")
NAME = "{{instance}}"
SLOW_SCRAPE, TOO_SLOW_SCRAPE = 0.5, 5.0


def _own(name: str, aggregation: str = "max", *labels: str, **matchers: str) -> str:
    return by(aggregation, (*EACH, *labels), select(f"esper_exporter_{name}", PROCESS, **matchers))


def _grown(name: str, *labels: str) -> str:
    """A counter's increase between two points."""
    return grown(f"esper_exporter_{name}_total", (*EACH, *labels), PROCESS)


def _stood(name: str, *labels: str) -> str:
    """A counter as it stood last in the time range."""
    return _totals(f"{name}_total", *labels, of=lambda each: over_range("last_over_time", each))


def _totals(name: str, *labels: str, of: Callable[[str], str] = rate) -> str:
    """A counter of the exporter's own, once for each process."""
    return total(f"esper_exporter_{name}", (*EACH, *labels), of, PROCESS)


def _mean(name: str) -> str:
    return f"{_totals(f'{name}_sum')} / ({_totals(f'{name}_count')} > 0)"


def _quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, {_totals(f'{name}_bucket', 'le')})"


NONE = values(value(0, "○ none", GOOD))
UP = values(value(0, "✕ down", BAD), value(1, "✓ up", GOOD))

TILES = (
    tile(
        "Down",
        'count(up{job=~"$job",instance=~"$instance"} == 0)'
        ' or 0 * count(up{job=~"$job",instance=~"$instance"})',
        "Targets that did not answer the last scrape. Good: 0. A process that ended and left its"
        " target file is down too: esper-exporter prune.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Events a second",
        f"sum({_totals('events_total')})",
        "Events handed to the exporters. 0 while training: the trainer is silent or its hub drops"
        " events before they come here.",
        decimals=1,
    ),
    tile(
        "Rejected",
        f"sum({_stood('events_rejected')})",
        "Events that could not be used, since the processes began. Good: 0. The log of the process"
        " names the first of each kind.",
        levels=any_is_bad(WARNING),
        mapping=NONE,
    ),
    tile(
        "Errors inside",
        f"sum({_stood('internal_errors')})",
        "Errors of the exporter's own that the training was spared. Good: 0. Otherwise the page may"
        " be incomplete; the log has one traceback.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Collectors failing",
        f"count({_own('collector_success', 'min', 'collector')} == 0)"
        f" or 0 * count({_own('collector_success', 'min', 'collector')})",
        "Collectors whose families are missing from the page. Good: 0.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Series dropped",
        f"sum({_stood('series_dropped')})",
        "Things that could not be shown because the cap on series was reached. Good: 0. Raise"
        " max_series; latches and counters are never dropped.",
        levels=any_is_bad(),
        mapping=NONE,
    ),
    tile(
        "Largest page",
        f"max({_own('series')} / {_own('series_limit')})",
        "Series of the largest page as a share of the cap. Good: below 80 %; at 100 % new"
        " environments and slots are not shown.",
        "percentunit",
        rising(0.8, 1.0),
    ),
    tile(
        "Slowest scrape",
        'max(scrape_duration_seconds{job=~"$job",instance=~"$instance"})',
        "How long Prometheus took for the slowest target. Good: below 0.5 s; near the scrape"
        " timeout samples are lost.",
        "s",
        rising(SLOW_SCRAPE, TOO_SLOW_SCRAPE),
        decimals=2,
    ),
)

PROCESSES = table(
    "Processes",
    {"job": "Job", "instance": "Instance", "version": "Version", "python_version": "Python"},
    (
        column(
            "Info",
            by(
                "max",
                (*EACH, "version", "python_version"),
                select("esper_exporter_build_info", PROCESS),
            ),
        ),
        column("Up", f"max by (job, instance) (up{{{PROCESS}}})", mapping=UP, width=90),
        column("Runs", _own("runs"), decimals=0),
        column("Series", _own("series"), decimals=0),
        column(
            "Of the cap",
            f"{_own('series')} / {_own('series_limit')}",
            unit="percentunit",
            decimals=1,
            cell="gauge",
            levels=((None, NEUTRAL),),
            width=150,
        ),
        column("Events", _stood("events"), decimals=0),
        column("Rejected", _stood("events_rejected"), decimals=0, levels=any_is_bad(WARNING)),
        column("Errors", _stood("internal_errors"), decimals=0, levels=any_is_bad()),
        column(
            "Scrape",
            f"max by (job, instance) (scrape_duration_seconds{{{PROCESS}}})",
            unit="s",
            decimals=3,
            levels=rising(SLOW_SCRAPE, TOO_SLOW_SCRAPE),
        ),
        column("Emit", _mean("emit_duration_seconds"), unit="s", decimals=3),
        column(
            "Last event", f"1000 * {_own('last_event_timestamp_seconds')}", unit="dateTimeFromNow"
        ),
        column(
            "Started",
            f"1000 * {_own('start_timestamp_seconds')}",
            unit="dateTimeAsLocal",
            width=165,
        ),
    ),
    "One row for each process that is scraped. Good: up, nothing rejected, no errors, scrapes below"
    " half a second, an emit below a millisecond.",
    height=8,
    hidden=("Info",),
    key_properties={
        "Job": (("custom.width", 90),),
        "Instance": (("custom.width", 230), ("links", [PAGE_LINK])),
    },
    sort=(("Up", False),),
)


def _per(title: str, expr: str, description: str, unit: str, **more: object) -> Panel:
    return series(title, Target(expr, NAME), description, unit=unit, **more)  # type: ignore[arg-type]


COST = (
    _per(
        "Scrape time",
        f"max by (job, instance) (scrape_duration_seconds{{{PROCESS}}})",
        "From request to parsed page, as Prometheus sees it. Good: below 0.5 s and level; most of"
        " it is Prometheus' own work.",
        "s",
        bounds=lines((SLOW_SCRAPE, WARNING)),
    ),
    series(
        "Time to deliver a page",
        (
            Target(_mean("scrape_duration_seconds"), f"mean {NAME}"),
            Target(_quantile(0.95, "scrape_duration_seconds"), f"95 % below {NAME}"),
        ),
        "What the exporter itself needs for a page, its transfer included. Good: tens of"
        " milliseconds. Far more: a slow client, or a starved process.",
        unit="s",
    ),
    series(
        "Time to emit an event",
        (
            Target(_mean("emit_duration_seconds"), f"mean {NAME}"),
            Target(_quantile(0.95, "emit_duration_seconds"), f"95 % below {NAME}"),
        ),
        "What an event costs the thread that emits it. Good: below a millisecond.",
        unit="s",
    ),
    _per(
        "Share of a core for events",
        _totals("emit_duration_seconds_sum"),
        "Seconds a second that emitting takes. Good: below 5 %. More: the trainer emits far"
        " more than it needs to.",
        "percentunit",
        soft_maximum=0.05,
        decimals=2,
    ),
    heatmap(
        "Events by time to emit",
        buckets("esper_exporter_emit_duration_seconds", PROCESS),
        "Where the events' times lie. Good: one band below a millisecond; a second one far above it"
        " means that another thread holds the interpreter.",
        unit="s",
    ),
    _per(
        "Events in flight",
        _own("events_in_flight"),
        "Events handed over and not yet applied. Good: 0 or 1. A growing number: the exporter"
        " cannot keep up.",
        "short",
    ),
)

EVENTS = (
    _per(
        "Events received",
        _totals("events_total"),
        "Events a second by process. Good: as the trainer emits; 0 while it trains is a fault of"
        " the chain before the exporter.",
        "eps",
    ),
    series(
        "Events not used",
        (
            Target(
                _grown("events_rejected", "reason") + " > 0", f"rejected: {{{{reason}}}} {NAME}"
            ),
            Target(
                _grown("events_duplicate", "reason") + " > 0", f"sent twice: {{{{reason}}}} {NAME}"
            ),
        ),
        "Events that could not be used, by reason, and those that came twice. Good: nothing"
        " rejected; dual_emit is expected where a trainer emits old and new names.",
        unit="short",
        bars=True,
        fill=80,
    ),
    series(
        "Errors and drops",
        (
            Target(_grown("internal_errors", "where") + " > 0", f"error in {{{{where}}}} {NAME}"),
            Target(_grown("series_dropped") + " > 0", f"series dropped {NAME}"),
            Target(_grown("fields_ignored") + " > 0", f"fields ignored {NAME}"),
            Target(
                _grown("gpu_field_errors", "field", "error") + " > 0",
                f"GPU {{{{field}}}}: {{{{error}}}} {NAME}",
            ),
        ),
        "What went wrong inside, by where. Good: empty. GPU fields that a model does not have count"
        " once, at the start.",
        unit="short",
        bars=True,
        fill=80,
    ),
    timeline(
        "Collectors",
        _own("collector_success", "min", "collector"),
        "{{collector}} {{instance}}",
        "Whether all that a collector has was on the page. Good: complete. esper is the exporter's"
        " own; others are what was registered beside it.",
        values(value(0, "✕ failing", BAD), value(1, "✓ complete", GOOD)),
        width=12,
    ),
    _per(
        "Time of the collectors",
        _own("collector_duration_seconds", "max", "collector"),
        "How long each collector took for the last page. Good: milliseconds. A slow one delays the"
        " whole page, up to its time limit.",
        "s",
        width=12,
    ),
)

PUSH = (
    _per(
        "Waiting to be pushed",
        _own("push_backlog_bytes"),
        "Bytes of the requests that the receiver has not taken. Good: 0. What waits for longer than"
        " push_max_age, or beyond push_max_bytes, is dropped, the oldest first.",
        "bytes",
        width=8,
    ),
    _per(
        "Samples pushed",
        _totals("push_samples_total"),
        "Samples a second that the receiver took. Good: level. A peak after a gap is what had"
        " waited.",
        "short",
        width=8,
    ),
    series(
        "Pushes failed, samples lost",
        (
            Target(
                _grown("push_failures", "reason") + " > 0", f"tried again: {{{{reason}}}} {NAME}"
            ),
            Target(
                _grown("push_samples_dropped", "reason") + " > 0", f"lost: {{{{reason}}}} {NAME}"
            ),
        ),
        "Requests that the receiver did not take and that are tried again, and samples that were"
        " given up, by reason. Good: empty. What is only pushed shows an outage afterwards.",
        unit="short",
        bars=True,
        fill=80,
        width=8,
    ),
)

CARDINALITY = (
    _per(
        "Series of the page",
        _own("series"),
        "Samples on the page. Good: level once all environments have reported; it grows with"
        " environments × slots.",
        "short",
        width=12,
    ),
    _per(
        "Samples scraped",
        f"max by (job, instance) (scrape_samples_scraped{{{PROCESS}}})",
        "Samples that Prometheus took from each target, foreign collectors included.",
        "short",
        width=12,
    ),
    ranking(
        "Families with most series",
        'topk(12, count by (__name__) ({job=~"$job",instance=~"$instance",__name__=~"esper_.+"}))',
        "{{__name__}}",
        "Where the series come from. Rewards and seeds come once for each environment and slot; if"
        " Prometheus is short of memory, drop families there first. It asks for"
        " every series there is.",
        unit="short",
        width=24,
        height=10,
        decimals=0,
    ),
)

ROWS = (
    Row("Is the exporter healthy?", (*in_lines(TILES), PROCESSES)),
    Row("What it costs", COST),
    Row("Events", EVENTS),
    Row("Push to a receiver", PUSH, closed=True),
    Row("Cardinality", CARDINALITY, closed=True),
)

DASHBOARD = of_processes(
    "esper-exporter",
    "esper · Exporter",
    "The exporter itself: is it well, what does it cost, how many series does it make.",
    ROWS,
)
