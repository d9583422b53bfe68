"""The exporter about itself: what came in, what was refused, what it costs."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, gauge, histogram, info

EMIT_BUCKETS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.025, 0.1)
SCRAPE_BUCKETS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
REJECT_REASONS = (
    "malformed",
    "malformed_json",
    "unknown_type",
    "missing_field",
    "wrong_type",
    "invalid_value",
    "no_run",
    "too_many_groups",
)
ERROR_PLACES = (
    "emit",
    "publish",
    "render",
    "snapshot",
    "server",
    "ending",
    "final_page",
    "probe",
    "vitals",
)

STATE_PROBLEMS = ("file", "field", "unwritable")

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
        "esper_exporter_runs",
        "derived: runs on this page",
        "Runs on this page.",
    ),
    gauge(
        "exporter",
        "esper_exporter_series",
        "derived: samples on the page rendered last",
        "Samples of the exporter's own on the page that was rendered last.",
    ),
    gauge(
        "exporter",
        "esper_exporter_series_limit",
        "derived: the cap on series",
        "Samples from which environments, slots, seeds and layers that come anew are not shown.",
    ),
    gauge(
        "exporter",
        "esper_exporter_events_in_flight",
        "derived: events handed to emit and not yet on the page",
        "Events handed to the exporter and not yet taken in.",
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
        "esper_exporter_events_total",
        "derived: number of objects handed to emit",
        "Events handed to the exporter, good or bad.",
        of_run=False,
    ),
    counter(
        "esper_exporter_events_rejected_total",
        "derived: number of events that could not be used, by reason",
        "Events that could not be used, by reason.",
        labels=("reason",),
        initial=tuple((reason,) for reason in REJECT_REASONS),
        of_run=False,
    ),
    counter(
        "esper_exporter_events_duplicate_total",
        "derived: number of events that told what had been told",
        "Events left out because they were told already: twice (repeated), or under both the old"
        " and the new name (dual_emit).",
        labels=("reason",),
        initial=(("repeated",), ("dual_emit",)),
        of_run=False,
    ),
    counter(
        "esper_exporter_fields_ignored_total",
        "derived: number of optional fields with a value of the wrong type",
        "Fields of events that were left out because their value made no sense.",
        of_run=False,
    ),
    counter(
        "esper_exporter_series_dropped_total",
        "derived: number of times a row found no room below the cap on series",
        "Times that something could not be shown because the cap on series was reached.",
        of_run=False,
    ),
    counter(
        "esper_exporter_internal_errors_total",
        "derived: number of errors caught inside the exporter, by where",
        "Errors inside the exporter that the training was spared.",
        labels=("where",),
        initial=tuple((where,) for where in ERROR_PLACES),
        of_run=False,
    ),
    counter(
        "esper_exporter_state_problems_total",
        "derived: number of state files and of fields in them that could not be used or written",
        "State files that could not be used (file) or written (unwritable), and fields of kept"
        " latches that made no sense (field).",
        labels=("problem",),
        initial=tuple((problem,) for problem in STATE_PROBLEMS),
        of_run=False,
    ),
    counter(
        "esper_exporter_scrapes_total",
        "derived: number of pages delivered",
        "Pages delivered.",
        of_run=False,
    ),
    histogram(
        "esper_exporter_emit_duration_seconds",
        "derived: time from emit's call to its return",
        "Time that taking in an event took.",
        EMIT_BUCKETS,
        of_run=False,
    ),
    histogram(
        "esper_exporter_scrape_duration_seconds",
        "derived: time from a scrape's request to the last byte of its page",
        "Time that delivering a page took.",
        SCRAPE_BUCKETS,
        of_run=False,
    ),
)
