"""The exporter about itself: what came in, what was refused, what it costs."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram, info
from esper_exporter.state import counted

METRICS: tuple[Metric, ...] = (
    info(
        "esper_exporter_build_info",
        ("version", "python_version"),
        "derived: versions of the exporter and of Python",
        "Version of the exporter.",
    ),
    gauge(
        "exporter",
        "esper_exporter_start_timestamp_seconds",
        "derived: when the exporter was made",
        "When the exporter was made.",
    ),
    gauge(
        "exporter",
        "esper_exporter_clock_timestamp_seconds",
        "derived: the clock of the process when the page was made",
        "The process' clock when the page was made. Against the time of the scrape it shows a clock"
        " that is wrong.",
    ),
    gauge("exporter", "esper_exporter_runs", "derived: runs on this page", "Runs on this page."),
    gauge(
        "exporter",
        "esper_exporter_series",
        "derived: samples on the page rendered last",
        "Series on the page rendered last, without those of added collectors.",
    ),
    gauge(
        "exporter",
        "esper_exporter_series_limit",
        "derived: the cap on series",
        "Limit of series, beyond which new environments, slots, seeds and layers are not shown.",
    ),
    gauge(
        "exporter",
        "esper_exporter_journal_active",
        "derived: whether the journal is written",
        "1 while the journal is written, 0 once it had to stop (a full disk); absent without one.",
    ),
    gauge(
        "exporter",
        "esper_exporter_push_backlog_bytes",
        "derived: size of the requests that the receiver has not taken yet",
        "Size of the requests that wait to be pushed; absent where nothing is pushed.",
    ),
    gauge(
        "exporter",
        "esper_exporter_push_last_success_timestamp_seconds",
        "derived: when the receiver last took a request",
        "When the receiver last took samples that were pushed.",
    ),
    gauge(
        "exporter",
        "esper_exporter_events_in_flight",
        "derived: events handed to emit and not yet on the page",
        "Events handed to the exporter and not yet applied.",
    ),
    gauge(
        "exporter",
        "esper_exporter_last_event_timestamp_seconds",
        "derived: when the last event was handed to the exporter",
        "When the last event was handed to the exporter, by its own clock.",
    ),
    gauge(
        "collector",
        "esper_exporter_collector_success",
        "derived: whether all families of a collector are on this page",
        "1 when all that a collector has is on this page; esper is the exporter's own metrics.",
    ),
    gauge(
        "collector",
        "esper_exporter_collector_duration_seconds",
        "derived: time that a collector took for this page",
        "Time that a collector took for this page.",
    ),
    counter(
        counted.EMITTED,
        "derived: number of objects handed to emit",
        "Events handed to the exporter, good or bad.",
    ),
    counter(
        counted.EVENTS_REJECTED,
        "derived: number of events that could not be used, by reason",
        "Events that could not be used, by reason.",
    ),
    counter(
        counted.EVENTS_DUPLICATE,
        "derived: number of events that repeated a report",
        "Events left out as duplicates: sent twice (repeated), or under both the old"
        " and the new name (dual_emit).",
    ),
    counter(
        counted.FIELDS_IGNORED,
        "derived: number of optional fields with a value of the wrong type",
        "Fields of events that were left out because their value made no sense.",
    ),
    counter(
        counted.SERIES_DROPPED,
        "derived: number of times a row found no room below the cap on series",
        "Times that something could not be shown because the cap on series was reached.",
    ),
    counter(
        counted.ENVIRONMENTS_DROPPED,
        "derived: environments that a run or a snapshot has beyond the limit of 1,024",
        "Environments beyond the 1,024th of a run: their values are not exported.",
    ),
    counter(
        counted.INTERNAL_ERRORS,
        "derived: number of errors caught inside the exporter, by where",
        "Errors inside the exporter, none of which reached the training.",
    ),
    counter(
        counted.STATE_PROBLEMS,
        "derived: number of state files and of fields in them that could not be used or written",
        "State files that could not be used (file) or written (unwritable), and fields of kept"
        " latches that made no sense (field).",
    ),
    counter(
        counted.HUB_DROPPED,
        "derived: hub_dropped_events and backend_stats.*.dropped_events of the hub's snapshot",
        "Events that esper's hub dropped, by queue: hub for the one of all backends, else the"
        " backend's class name. A queue was full, or the backend raised.",
    ),
    counter(
        counted.HUB_DELIVERED,
        "derived: backend_stats.*.processed_events of the hub's snapshot",
        "Events that esper's hub delivered, by the backend's class name.",
    ),
    counter(counted.SCRAPES, "derived: number of pages delivered", "Pages delivered."),
    counter(
        counted.PUSH_SAMPLES,
        "derived: number of samples that the receiver has taken",
        "Samples pushed to a receiver of remote write.",
    ),
    counter(
        counted.PUSH_SAMPLES_DROPPED,
        "derived: number of samples that were given up, by reason",
        "Samples that were not pushed: refused by the receiver, beyond the backlog's bytes or age,"
        " or unreadable on disk.",
    ),
    counter(
        counted.PUSH_FAILURES,
        "derived: number of requests that failed and are tried again, by reason",
        "Requests that the receiver did not take, and that are tried again.",
    ),
    histogram(
        counted.EMIT_DURATION,
        "derived: time from emit's call to its return",
        "Time to accept an event.",
    ),
    histogram(
        counted.SCRAPE_DURATION,
        "derived: time from a scrape's request to the last byte of its page",
        "Time to deliver a page.",
    ),
)
