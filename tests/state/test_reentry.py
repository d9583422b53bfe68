"""Emits from anywhere: nothing hangs, nothing is lost, one slow event delays no other."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from esper_exporter import Exporter
from esper_exporter.state.state_lock import StateLock

ROOT = Path(__file__).parents[2]
LONG = 60.0


def total(exporter: Exporter, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(exporter.render().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def epoch(number: int, **envelope: Any) -> dict[str, Any]:
    data = {"env_id": 0, "val_accuracy": 50.0, "val_loss": 1.0, "inner_epoch": number}
    envelope = {"timestamp": "2026-01-01T00:00:00+00:00", **envelope}
    return {"event_type": "TOLARIA_EPOCH_COMPLETED", "data": data, **envelope}


@pytest.fixture
def exporter() -> Exporter:
    return Exporter(port=0, state_dir="off")


def test_emits_from_signals_finalisers_log_handlers_attributes_and_collectors_all_count() -> None:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'exporter'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reentry", "--tries", "200", "--forks", "40"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "forks: 40 children, 0 hung or failed" in done.stdout


class Slow:
    """A payload whose attribute blocks until the test lets it go."""

    def __init__(self) -> None:
        self.__dict__.update(epoch(1)["data"])
        self.reached = threading.Event()
        self.release = threading.Event()

    @property
    def train_loss(self) -> float:
        self.reached.set()
        assert self.release.wait(LONG)
        return 1.0


def test_an_attribute_that_blocks_delays_neither_other_emits_nor_scrapes(
    exporter: Exporter,
) -> None:
    slow = Slow()
    thread = threading.Thread(target=exporter.emit, args=({**epoch(1), "data": slow},))
    thread.start()
    assert slow.reached.wait(LONG)
    exporter.emit(epoch(2))
    assert total(exporter, "esper_tolaria_epochs_total") == 1
    assert total(exporter, "esper_exporter_events_in_flight") == 1
    slow.release.set()
    thread.join()
    assert total(exporter, "esper_tolaria_epochs_total") == 2
    assert total(exporter, "esper_exporter_events_in_flight") == 0


def test_events_that_an_attribute_emits_are_applied_after_their_event_in_order(
    exporter: Exporter,
) -> None:
    class Emitting:
        def __init__(self) -> None:
            self.__dict__.update(epoch(1)["data"])

        @property
        def train_loss(self) -> float:
            for number in (2, 3):
                exporter.emit(epoch(number, message=str(number)))
            return 1.0

    exporter.emit({**epoch(1, message="1"), "data": Emitting()})
    exporter.emit(epoch(4, message="4"))
    snapshot = exporter.snapshot()
    assert [entry.message for entry in snapshot.event_log] == ["1", "2", "3", "4"]


def test_an_event_that_emits_itself_ends_and_is_counted(exporter: Exporter) -> None:
    class Endless:
        def __init__(self) -> None:
            self.__dict__.update(epoch(1)["data"])

        @property
        def train_loss(self) -> float:
            exporter.emit({**epoch(1), "data": self})
            return 1.0

    exporter.emit({**epoch(1), "data": Endless()})
    assert total(exporter, "esper_exporter_events_rejected_total", reason="reentered") >= 1
    assert total(exporter, "esper_tolaria_epochs_total") >= 1


def test_the_holder_of_the_state_does_what_it_is_asked_for_meanwhile_after_its_own_work() -> None:
    done: list[str] = []
    lock = StateLock(lambda: done.append("error"))

    def outer() -> None:
        lock.submit(lambda: done.append("inner"))
        assert lock.read(lambda: "new", lambda: "last", 0.0) == "last"
        done.append("outer")

    lock.submit(outer)
    assert done == ["outer", "inner"]
    assert lock.read(lambda: "new", lambda: "last", 0.0) == "new"


def test_work_is_done_now_only_where_the_state_is_free_and_nothing_waits() -> None:
    done: list[str] = []
    lock = StateLock(lambda: done.append("error"))

    def outer(name: str, count: int) -> None:
        assert not lock.do_now(outer, "inner", 1)
        lock.submit(lambda: done.append("queued"))
        done.extend([name] * count)

    assert lock.do_now(outer, "outer", 1)
    assert lock.do_now(divmod, 1, 0)
    assert (done, lock.taken) == (["outer", "queued", "error"], False)


def test_a_thread_that_keeps_the_state_keeps_no_other_waiting_and_loses_no_work() -> None:
    lock = StateLock(lambda: None)
    inside, release = threading.Event(), threading.Event()
    done: list[str] = []

    def hold() -> None:
        inside.set()
        assert release.wait(LONG)

    thread = threading.Thread(target=lock.submit, args=(hold,))
    thread.start()
    assert inside.wait(LONG)
    lock.submit(lambda: done.append("work"), wait=0.01)
    assert (done, lock.taken) == ([], True)
    release.set()
    thread.join()
    assert (done, lock.taken) == (["work"], False)


def test_work_that_raises_costs_only_itself() -> None:
    errors: list[str] = []
    lock = StateLock(lambda: errors.append("error"))
    lock.submit(lambda: 1 / 0)
    done: list[int] = []
    lock.submit(lambda: done.append(1))
    assert (errors, done) == (["error"], [1])


def test_an_interrupt_amid_a_change_releases_the_state() -> None:
    lock = StateLock(lambda: None)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lock.submit(interrupt)
    done: list[int] = []
    thread = threading.Thread(target=lock.submit, args=(lambda: done.append(1),))
    thread.start()
    thread.join()
    assert done == [1]


def test_the_server_answers_while_the_state_is_kept(exporter: Exporter) -> None:
    exporter.emit(epoch(1))
    exporter.render()
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert release.wait(LONG)

    thread = threading.Thread(target=exporter._lock.submit, args=(hold,))
    thread.start()
    try:
        assert inside.wait(LONG)
        assert exporter.ready() is False
        assert exporter.summaries() is not None
        assert b"esper_exporter_build_info" in exporter.render()
    finally:
        release.set()
        thread.join()


# -- values that turn against who uses them later --------------------------------------------


class EvilTime(datetime):
    """A datetime that raises whenever it is used."""

    def _refuse(self, *_args: object) -> Any:
        raise RuntimeError("no")

    timestamp = isoformat = replace = astimezone = strftime = utcoffset = _refuse
    __gt__ = __lt__ = __ge__ = __le__ = __eq__ = __sub__ = __format__ = __hash__ = _refuse  # type: ignore[assignment]
    year = property(_refuse)  # type: ignore[assignment]


class EvilZone(tzinfo):
    def utcoffset(self, _when: datetime | None) -> timedelta:
        raise RuntimeError("no")


class EvilText(str):
    def _refuse(self, *_args: object) -> Any:
        raise RuntimeError("no")

    __eq__ = __hash__ = __len__ = __str__ = __format__ = isascii = encode = _refuse  # type: ignore[assignment]


class EvilInt(int):
    def _refuse(self, *_args: object) -> Any:
        raise RuntimeError("no")

    __eq__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = __index__ = __float__ = _refuse  # type: ignore[assignment]
    __int__ = __add__ = __str__ = _refuse  # type: ignore[assignment]


class EvilFloat(float):
    def _refuse(self, *_args: object) -> Any:
        raise RuntimeError("no")

    __eq__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __add__ = _refuse  # type: ignore[assignment]
    __truediv__ = __mul__ = __format__ = _refuse  # type: ignore[assignment]


def test_hostile_subclasses_of_plain_types_do_not_poison_their_run(exporter: Exporter) -> None:
    when = EvilTime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    event = epoch(1, timestamp=when, group_id="default")
    event["data"] |= {"val_accuracy": EvilFloat(50.0), "inner_epoch": EvilInt(7)}
    event["data"]["seeds"] = {"r0c0": {"stage": EvilText("TRAINING")}}
    exporter.emit(event)
    exporter.emit(epoch(2, timestamp=datetime(2026, 1, 2, tzinfo=EvilZone())))
    page = exporter.render().decode()
    assert total(exporter, "esper_exporter_internal_errors_total") == 0
    assert total(exporter, "esper_tolaria_epochs_total") == 2
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert total(exporter, "esper_run_last_event_timestamp_seconds") >= moment
    assert 'slot_id="r0c0"' in page


# -- snapshots -------------------------------------------------------------------------------


def snapshot(**more: Any) -> dict[str, Any]:
    return {"run_id": "s", "current_batch": 3, "current_episode": 5, "task_name": "cifar", **more}


@pytest.mark.parametrize("bad", [10**400, -(10**400), float("nan"), object(), "x" * 9, [[]], {}])
def test_a_bad_number_in_a_snapshot_costs_only_itself(exporter: Exporter, bad: object) -> None:
    exporter.observe_snapshot(
        snapshot(current_batch=bad, envs={0: {"env_id": 0, "host_accuracy": 40.0}})
    )
    assert total(exporter, "esper_exporter_internal_errors_total") == 0
    assert total(exporter, "esper_exporter_fields_ignored_total") == 1
    assert total(exporter, "esper_exporter_collector_success", collector="esper") == 1
    assert exporter.snapshot().current_episode == 5


def test_an_attribute_of_a_snapshot_that_raises_costs_only_itself(exporter: Exporter) -> None:
    class Raising:
        run_id = "s"
        current_episode = 5

        @property
        def current_batch(self) -> int:
            raise RuntimeError("no")

    exporter.observe_snapshot(Raising())
    assert exporter.snapshot().current_episode == 5
    assert total(exporter, "esper_exporter_fields_ignored_total") == 1
    assert total(exporter, "esper_exporter_internal_errors_total") == 0


def test_names_in_a_snapshot_are_capped_and_counted(exporter: Exporter) -> None:
    slots = {"s" * 10**6: {"slot_id": "r0c0", "stage": "TRAINING", "blueprint_id": "b" * 10**6}}
    exporter.observe_snapshot(
        snapshot(run_id="r" * 10**6, envs={0: {"env_id": 0, "seeds": slots}}),
        group_id="g" * 10**6,
    )
    assert len(exporter.render()) < 2_000_000
    assert total(exporter, "esper_exporter_fields_ignored_total") == 4


def test_environments_beyond_the_limit_are_counted(exporter: Exporter) -> None:
    envs = {number: {"env_id": number, "host_accuracy": 1.0} for number in range(1030)}
    exporter.observe_snapshot(snapshot(envs=envs))
    assert total(exporter, "esper_exporter_environments_dropped_total") == 6
    assert len(exporter.snapshot().envs) == 1024


def test_a_time_of_a_hostile_class_in_a_snapshot_is_plain_afterwards(exporter: Exporter) -> None:
    when = EvilTime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    exporter.observe_snapshot(snapshot(start_time=when))
    exporter.observe_snapshot(snapshot(start_time=when, current_episode=6))
    found = exporter.snapshot().start_time
    assert (type(found), found) == (datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert total(exporter, "esper_exporter_runs") == 1


def test_a_slow_log_handler_delays_no_other_thread(exporter: Exporter) -> None:
    reached, release = threading.Event(), threading.Event()

    class Blocking(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            reached.set()
            assert release.wait(LONG)

    logger, handler = logging.getLogger("esper_exporter"), Blocking()
    logger.addHandler(handler)
    try:
        thread = threading.Thread(target=exporter.emit, args=({"event_type": "NOBODY_KNOWS"},))
        thread.start()
        assert reached.wait(LONG)
        exporter.emit(epoch(1))
        assert total(exporter, "esper_tolaria_epochs_total") == 1
        assert not release.is_set()
    finally:
        release.set()
        thread.join()
        logger.removeHandler(handler)
