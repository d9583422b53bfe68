"""The agent's metrics about itself and the processes that it follows."""

from __future__ import annotations

from collections.abc import Sequence

from esper_exporter.agent.exit_status import DIED, Exit
from esper_exporter.agent.process_list import ProcessList
from esper_exporter.agent.tracked_process import TrackedProcess
from esper_exporter.metrics.families.agent_metrics import PROCESS_STATES, REFUSALS
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.rows import Mirror
from esper_exporter.metrics.table import ValueTable
from esper_exporter.state.failure_reason import REASONS


class AgentRows:
    """The agent's rows: number of processes, how they ended, refused pages."""

    def __init__(self, table: ValueTable, started: float) -> None:
        blocks = compiled()
        self._own = Mirror(table, blocks, "agent")
        self._pages = Mirror(table, blocks, "agent_process")
        self._exits = Mirror(table, blocks, "run_exit")
        self._runs = Mirror(table, blocks, "run")
        self._started = started
        self.deaths = dict.fromkeys(REASONS, 0)
        self.scrapes = 0

    def write(
        self, shown: Sequence[TrackedProcess], found: ProcessList, conflicts: int, now: float
    ) -> None:
        """Write the current rows."""
        states = dict.fromkeys(PROCESS_STATES, 0)
        ages: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
        exits: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
        failed: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
        for process in shown:
            states[state_of(process)] += 1
            run, rank = process.view.run_labels()
            published = process.view.published
            if process.alive and published is not None:
                age = max(0.0, now - published.at)
                ages[run, rank] = {("esper_agent_page_age_seconds",): age}
            if not run:
                run, rank = process.identity.run_id, str(process.identity.rank)
            if process.end is not None and process.end.reason and process.died_before_its_run:
                failed[run, "default", rank] = _failure(process.end)
            if process.end is not None and process.end.exit_code >= 0:
                exits[run, rank] = {
                    ("esper_run_exit_code",): float(process.end.exit_code),
                    ("esper_run_exit_signal",): float(process.end.signal),
                }
        own: dict[tuple[str, ...], float] = {
            ("esper_agent_start_timestamp_seconds",): self._started,
            ("esper_agent_clock_timestamp_seconds",): now,
            ("esper_agent_torn_reads_total",): float(found.torn),
            ("esper_agent_pages_retired_total",): float(found.retired),
            ("esper_agent_scrapes_total",): float(self.scrapes),
            ("esper_agent_family_conflicts_total",): float(conflicts),
        }
        own |= {("esper_agent_processes", state): float(n) for state, n in states.items()}
        own |= {("esper_agent_deaths_total", each): float(n) for each, n in self.deaths.items()}
        own |= {
            ("esper_agent_pages_refused", reason): float(found.refused.get(reason, 0))
            for reason in REFUSALS
        }
        self._own.show({(): own})
        self._pages.show(ages)
        self._exits.show(exits)
        self._runs.show(failed)


def _failure(end: Exit) -> dict[tuple[str, ...], float]:
    """The samples of a run whose process ended before its first event."""
    reason = end.reason if end.reason in REASONS else "unknown"
    return {
        ("esper_run_active",): 0.0,
        ("esper_run_finished",): 0.0,
        ("esper_run_end_timestamp_seconds",): end.at,
    } | {("esper_run_failed", each): float(each == reason) for each in REASONS}


def state_of(process: TrackedProcess) -> str:
    """A value of ``esper_agent_processes{state}``."""
    if process.end is None:
        return "running"
    if process.end.reason == DIED:
        return "died"
    return "failed" if process.end.reason else "finished"
