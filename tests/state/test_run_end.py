"""A run ends with its batches, with another group's run, or with its process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from esper_exporter import Exporter
from support.pages import value
from support.recordings import telemetry_lines


def telemetry_events(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in telemetry_lines(name)]


STARTED, *REST = telemetry_events("run1")
BATCHES = [event for event in REST if event["event_type"] == "BATCH_EPOCH_COMPLETED"]
UPDATE = next(event for event in REST if event["event_type"] == "PPO_UPDATE_COMPLETED")
EPOCH = next(event for event in REST if event["event_type"] == "EPOCH_COMPLETED")
SKIPPED = next(
    event
    for event in telemetry_events("run2b")
    if event["data"].get("anomaly_type") == "ppo_finiteness_skip"
)


class Pages:
    """An exporter with several groups, and its page's statement on each."""

    def __init__(self) -> None:
        self.exporter = Exporter(port=0)

    def emit(self, group: str, *events: dict[str, Any]) -> None:
        for event in events:
            self.exporter.emit({**event, "event_id": None, "group_id": group})

    def says(self, group: str) -> tuple[float | None, float | None, float | None, bool]:
        """Active, finished, failed as nonfinite, and whether an end is reported."""
        page = self.exporter.render().decode()

        def of(name: str, **labels: str) -> float | None:
            return value(page, f"esper_run_{name}", group_id=group, **labels)

        return (
            of("active"),
            of("finished"),
            of("failed", reason="nonfinite"),
            of("end_timestamp_seconds") is not None,
        )


GOES_ON = (1.0, 0.0, 0.0, False)
FINISHED = (0.0, 1.0, 0.0, True)
FAILED = (0.0, 0.0, 1.0, True)
ENDED = (0.0, 0.0, 0.0, True)
"""Nothing says how."""


@pytest.fixture
def pages() -> Pages:
    return Pages()


def die(exporter: Exporter, error: BaseException) -> None:
    with pytest.raises(type(error)):
        try:
            raise error
        finally:
            exporter.close()


def test_a_group_has_finished_when_all_its_batches_are_done(pages: Pages) -> None:
    pages.emit("A", STARTED, UPDATE, *BATCHES[:-1])
    assert pages.says("A") == GOES_ON
    pages.emit("A", BATCHES[-1])
    assert pages.says("A") == FINISHED
    page = pages.exporter.render().decode()
    assert value(page, "esper_run_progress_ratio", group_id="A") == 1.0


def test_what_is_said_after_the_last_batch_does_not_begin_it_again(pages: Pages) -> None:
    pages.emit("A", STARTED, *BATCHES, REST[-1])
    assert REST[-1]["event_type"] == "ANALYTICS_SNAPSHOT"
    assert pages.says("A") == FINISHED
    pages.emit("A", EPOCH)
    assert pages.says("A") == GOES_ON


def test_the_second_groups_death_is_not_the_first_ones(pages: Pages) -> None:
    pages.emit("A", STARTED, UPDATE, *BATCHES)
    pages.emit("B", STARTED, UPDATE)
    assert (pages.says("A"), pages.says("B")) == (FINISHED, GOES_ON)
    pages.emit("B", {**SKIPPED, "timestamp": BATCHES[-1]["timestamp"]})
    die(pages.exporter, RuntimeError("training halted"))
    assert (pages.says("A"), pages.says("B")) == (FINISHED, FAILED)


def test_a_group_that_stopped_short_gives_way_to_the_next(pages: Pages) -> None:
    pages.emit("A", STARTED, UPDATE, *BATCHES[:3])
    pages.emit("B", STARTED)
    assert (pages.says("A"), pages.says("B")) == (ENDED, GOES_ON)
    die(pages.exporter, RuntimeError("the loss is not finite"))
    assert (pages.says("A"), pages.says("B")) == (ENDED, FAILED)


def test_groups_that_train_at_the_same_time_go_on(pages: Pages) -> None:
    pages.emit("A", STARTED, UPDATE)
    pages.emit("B", STARTED, UPDATE)
    pages.emit("A", EPOCH)
    assert (pages.says("A"), pages.says("B")) == (GOES_ON, GOES_ON)
    die(pages.exporter, RuntimeError("the loss is not finite"))
    assert (pages.says("A"), pages.says("B")) == (FAILED, FAILED)


def test_a_run_that_had_done_its_batches_has_not_failed_with_its_process(pages: Pages) -> None:
    pages.emit("A", STARTED, *BATCHES)
    die(pages.exporter, RuntimeError("the loss is not finite"))
    assert pages.says("A") == FINISHED


def test_a_run_with_batches_done_stays_finished_when_the_exporter_starts_again(
    pages: Pages,
) -> None:
    pages.emit("A", STARTED, *BATCHES)
    pages.emit("B", STARTED, UPDATE)
    pages.exporter.close()
    assert (pages.says("A"), pages.says("B")) == (FINISHED, FINISHED)
    pages.exporter.start()
    assert (pages.says("A"), pages.says("B")) == (FINISHED, GOES_ON)
    pages.exporter.close()


def test_a_run_without_a_number_of_batches_finishes_with_its_process(pages: Pages) -> None:
    endless = {**STARTED, "data": {**STARTED["data"], "max_batches": 0, "n_episodes": 0}}
    batches = [{**b, "data": {**b["data"], "total_episodes": 0}} for b in BATCHES]
    pages.emit("A", endless, *batches)
    assert pages.says("A") == GOES_ON
    pages.exporter.close()
    assert pages.says("A") == FINISHED


def test_the_summary_says_how_each_group_ended(pages: Pages) -> None:
    pages.emit("A", STARTED, *BATCHES)
    pages.emit("B", STARTED)
    pages.emit("C", STARTED)
    states = {run.group_id: run.state for run in pages.exporter.summaries()}
    assert states == {"A": "finished", "B": "ended", "C": "running"}


def test_a_recording_that_stops_short_of_its_last_batch_has_ended_with_its_last_event(
    pages: Pages,
) -> None:
    pages.emit("A", STARTED, *BATCHES)
    pages.emit("B", STARTED, UPDATE, *BATCHES[:3])
    pages.exporter.end_recordings()
    assert (pages.says("A"), pages.says("B")) == (FINISHED, ENDED)
    page = pages.exporter.render().decode()
    ended = value(page, "esper_run_end_timestamp_seconds", group_id="B")
    assert ended == value(page, "esper_run_last_event_timestamp_seconds", group_id="B")
    assert [run.state for run in pages.exporter.summaries()] == ["finished", "ended"]
    pages.emit("B", BATCHES[3])
    assert pages.says("B") == GOES_ON


def test_no_recording_is_no_end(pages: Pages) -> None:
    pages.exporter.end_recordings()
    assert pages.exporter.summaries() == ()


def test_the_first_reason_that_a_run_failed_for_stays(pages: Pages) -> None:
    pages.emit("A", STARTED, UPDATE)
    die(pages.exporter, MemoryError("nothing left"))
    die(pages.exporter, RuntimeError("while cleaning up"))
    page = pages.exporter.render().decode()
    assert value(page, "esper_run_failed", group_id="A", reason="oom") == 1.0
    assert value(page, "esper_run_failed", group_id="A", reason="exception") == 0.0
