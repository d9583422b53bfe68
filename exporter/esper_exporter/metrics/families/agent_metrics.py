"""The node agent about itself, and about how the processes that it follows ended."""

from __future__ import annotations

from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter_in, gauge, split
from esper_exporter.state.failure_reason import REASONS

PROCESS_STATES = ("running", "finished", "failed", "died")
REFUSALS = (
    "owner",
    "writable",
    "not_a_file",
    "not_a_directory",
    "unreadable",
    "too_large",
    "truncated",
    "corrupt",
    "version",
    "busy",
    "duplicate",
)

METRICS: tuple[Metric, ...] = (
    gauge(
        "agent",
        "esper_agent_start_timestamp_seconds",
        "derived: when the agent started",
        "When the agent started.",
    ),
    gauge(
        "agent",
        "esper_agent_clock_timestamp_seconds",
        "derived: the clock of the node when the page was made",
        "The node's clock when the agent made the page. Against the time of the scrape it shows a"
        " clock that is wrong.",
    ),
    split(
        "agent",
        "esper_agent_processes",
        "state",
        PROCESS_STATES,
        "derived: processes of the shares by state",
        "Processes whose pages the agent serves. died: gone without an exit record, and nothing"
        " waited for the process.",
    ),
    split(
        "agent",
        "esper_agent_pages_refused",
        "reason",
        REFUSALS,
        "derived: pages of the shares that are not served",
        "Pages that the agent found and does not serve, by reason.",
    ),
    split(
        "agent",
        "esper_agent_deaths_total",
        "reason",
        REASONS,
        "derived: processes that failed, by reason",
        "Processes that failed since the agent started, by reason; died: in the middle of a run and"
        " without a record of its exit.",
    ),
    counter_in(
        "agent",
        "esper_agent_torn_reads_total",
        "derived: readings of a page that its writer overtook",
        "Readings of a shared page that the agent repeated because the writer overtook them.",
    ),
    counter_in(
        "agent",
        "esper_agent_pages_retired_total",
        "derived: pages of ended processes that were taken off",
        "Pages of ended processes that the agent no longer serves.",
    ),
    counter_in(
        "agent",
        "esper_agent_scrapes_total",
        "derived: pages delivered",
        "Pages that the agent delivered whole.",
    ),
    counter_in(
        "agent",
        "esper_agent_family_conflicts_total",
        "derived: families left out because two versions declare different types",
        "Metric families that the agent left out of some pages, because exporters of different"
        " versions declare them with different types.",
    ),
    gauge(
        "agent_process",
        "esper_agent_page_age_seconds",
        "derived: now less the time of the newest publication",
        "Age of the newest page that the process published. A process publishes every second.",
    ),
    gauge(
        "run_exit",
        "esper_run_exit_code",
        "derived: the exit status of the run's process, as a shell shows it",
        "Exit code of the run's process, 128 plus the signal's number where one ended it. Absent"
        " while it lives, and where nothing waited for it.",
    ),
    gauge(
        "run_exit",
        "esper_run_exit_signal",
        "derived: the signal that ended the run's process",
        "Number of the signal that ended the run's process, 0 for none. Absent while it lives, and"
        " where nothing waited for it.",
    ),
)
