"""The page's JSON: it follows its schema for every run, and costs nothing without viewers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from esper_exporter import Exporter
from esper_exporter.probes.gpu.driver import Identity
from esper_exporter.probes.gpu.gpu_report import GpuReport, GpuSample
from esper_exporter.serve.page.site import schema
from esper_exporter.serve.page.system import gpu_reasons
from esper_exporter.serve.page.verdict import with_reasons
from page.worlds import (
    HEADS,
    epoch,
    heads_update,
    hostile,
    own_heads,
    quiet,
    recorded,
    two_groups,
    wide,
)
from support.states import event, started, update

STATE = Draft202012Validator(json.loads(schema("state")))
HISTORY = Draft202012Validator(json.loads(schema("history")))


def state(
    exporter: Exporter, key: str = "", env: int | None = None, since: str | None = None
) -> dict[str, Any]:
    """The answer of /api/v1/state, checked against its schema."""
    exporter.page._answers.clear()
    _, body = exporter.page.state(key, env, "", since)
    assert body is not None
    reply: dict[str, Any] = json.loads(body)
    STATE.validate(reply)
    return reply


def history(exporter: Exporter, since: str = "", key: str = "") -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(exporter.page.history(key, since))
    HISTORY.validate(reply)
    return reply


def test_the_schemas_are_schemas() -> None:
    for validator in (STATE, HISTORY):
        Draft202012Validator.check_schema(validator.schema)


WORLDS: dict[str, Callable[[], Exporter]] = {
    "nothing": quiet,
    "run1": lambda: recorded("run1"),
    "run1 in its midst": lambda: recorded("run1", 4000),
    "run2b": lambda: recorded("run2b"),
    "own heads": own_heads,
    "two groups": two_groups,
    "markup": hostile,
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_every_kind_of_run_keeps_the_schema(world: Callable[[], Exporter]) -> None:
    exporter = world()
    reply = state(exporter)
    for run in reply["runs"]:
        chosen = state(exporter, run["key"], 0)
        assert chosen["run"]["key"] == run["key"]
        assert chosen["run"]["env"] is None or chosen["run"]["env"]["id"] == 0
        history(exporter, "", run["key"])


def test_numbers_that_are_none_go_as_words() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0, explained_variance=math.nan, policy_loss=math.inf))
    values = state(exporter)["run"]["policy"]["values"]
    assert (values["explained_variance"], values["policy_loss"]) == ("NaN", "Inf")
    assert history(exporter)["updates"]["rows"][0][3] == "Inf"


def test_a_history_adds_only_what_is_new() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0))
    first = history(exporter)
    assert first["reset"] and len(first["updates"]["rows"]) == 1
    assert not history(exporter, first["cursor"])["updates"]["rows"]
    exporter.emit(update(2.0))
    more = history(exporter, first["cursor"])
    assert not more["reset"]
    assert [row[0] for row in more["updates"]["rows"]] == [2]
    assert [line["word"] for line in more["events"]] == ["policy update"]


def test_a_cursor_of_another_process_gets_everything() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0))
    for cursor in ("", "1.1", "nonsense", f"{history(exporter)['cursor']}0", "9" * 400):
        assert history(exporter, cursor)["reset"]


def test_the_rings_hold_600_updates_and_keep_a_fault_through_any_number_of_epochs() -> None:
    exporter = quiet()
    exporter.emit(started(max_batches=5000))
    exporter.emit(update(1.0, head_nan_detected={"op": True}))
    for number in range(700):
        exporter.emit(update(2.0 + number))
        for env in range(2):
            exporter.emit(epoch(env, number + 1, 50.0, {}, 2.0 + number))
    reply = history(exporter)
    assert len(reply["updates"]["rows"]) == 600
    assert reply["updates"]["rows"][-1][0] == 701
    assert [mark["number"] for mark in reply["marks"]] == [1]
    assert sum(line["routine"] for line in reply["events"]) == 50
    others = [line for line in reply["events"] if not line["routine"]]
    faults = [line for line in others if line["colour"] == "crit"]
    assert (len(others), [line["update"] for line in faults]) == (201, [1])


def test_a_skipped_update_is_a_gap_and_both_reports_of_it_are_one_mark() -> None:
    reply = history(recorded("run2b"))
    rows = reply["updates"]["rows"]
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row[3] is None for row in rows] == [False, False, True, False, True, True]
    assert [(mark["number"], mark["text"]) for mark in reply["marks"]] == [
        (3, "tempo NaN"),
        (5, "op NaN"),
        (6, "op NaN"),
    ]


def test_a_latch_that_only_an_update_reports_is_in_the_log_among_the_faults() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0, policy_loss=math.nan, head_nan_detected={"op": True}))
    reply = history(exporter)
    (line,) = [line for line in reply["events"] if line["group"] == "faults"]
    assert (line["word"], line["colour"]) == ("non-finite", "crit")
    assert line["text"].startswith("op NaN: ")
    assert [mark["text"] for mark in reply["marks"]] == ["op NaN"]


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_head_with_a_slash_in_its_name_keeps_it(kind: str) -> None:
    exporter = quiet()
    exporter.emit(started(action_heads=["arm/joint"]))
    reports = {"arm/joint": {"entropy": 0.5, "grad_norm": 0.5}}
    latched = {f"head_{kind}_detected": {"arm/joint": True}}
    exporter.emit(update(1.0, action_heads=["arm/joint"], head_updates=reports, **latched))
    word = {"nan": "NaN", "inf": "Inf"}[kind]
    assert [mark["text"] for mark in history(exporter)["marks"]] == [f"arm/joint {word}"]


def test_a_healthy_run_names_its_stalled_environments() -> None:
    exporter = wide(envs=4, slots=1, epochs=3)
    exporter.emit(heads_update(9.0, **{h: {"entropy": 0.5, "grad_norm": 0.5} for h in HEADS}))
    (entry,) = exporter._runs.current.values()
    entry.state.snapshot.envs[2].status = "stalled"
    verdict = state(exporter)["runs"][0]["verdict"]
    assert verdict["word"] == "healthy"
    assert "8 heads, none dead, exploding or collapsed" in verdict["checked"]
    assert "4 environments, none degraded, 1 stalled" in verdict["checked"]


def test_what_was_not_measured_is_not_called_well() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0))
    verdict = state(exporter)["runs"][0]["verdict"]
    assert verdict["word"] == "healthy"
    assert not [text for text in verdict["checked"] if "heads" in text or "environments" in text]
    exporter.emit(heads_update(2.0, op={"entropy": 0.5, "grad_norm": 0.5}))
    checked = state(exporter)["runs"][0]["verdict"]["checked"]
    assert "1 of 8 heads, none dead, exploding or collapsed" in checked


SILENT = GpuSample(Identity("2", "GPU-2", "simulated", "0000:02:00.0"), {}, (), 1000.0)


@pytest.mark.parametrize(("now", "level"), [(1001.0, "warn"), (1119.0, "warn"), (1121.0, "crit")])
def test_a_gpu_that_does_not_answer_is_a_reason_and_pages_when_its_rule_does(
    now: float, level: str
) -> None:
    exporter = quiet()
    exporter.emit(started())
    (summary,) = state(exporter)["runs"]
    found = gpu_reasons(GpuReport("fake", gpus=(SILENT,)), now)
    verdict = with_reasons(with_reasons(summary["verdict"], found), found)
    assert verdict["word"] == {"warn": "look", "crit": "broken"}[level]
    assert (verdict["critical"], verdict["warnings"]) == (level == "crit", level == "warn")
    (reason,) = verdict["reasons"]
    assert (reason["subject"], reason["level"], reason["part"]) == ("GPU 2", level, "system")


def test_an_answer_that_did_not_change_has_no_body() -> None:
    exporter = quiet()
    exporter.emit(started())
    etag, body = exporter.page.state("", None, "")
    assert body is not None
    assert exporter.page.state("", None, etag) == (etag, None)
    exporter.emit(update(1.0))
    exporter.page._answers.clear()
    fresh, body = exporter.page.state("", None, etag)
    assert fresh != etag and body is not None


def test_new_readings_of_the_machine_are_news(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = quiet()
    exporter.emit(started())
    reports: list[Any] = [None]
    monkeypatch.setattr(
        type(exporter.page._vitals), "reports", lambda _self: (None, None, reports[0])
    )
    known = ""
    for number in range(50):  # each report takes the memory, and with it the address, of another
        reports[0] = {"/": {("esper_host_disk_free_bytes",): float(number)}}
        exporter.page._answers.clear()
        fresh, body = exporter.page.state("", None, known)
        assert body is not None, number
        known = fresh


def test_an_answer_brings_what_has_happened_since_a_cursor() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0))
    first = history(exporter)
    exporter.emit(update(2.0))
    reply = state(exporter, since=first["cursor"])
    HISTORY.validate(reply["history"])
    assert (reply["history"]["reset"], reply["history"]["key"]) == (False, reply["run"]["key"])
    assert [row[0] for row in reply["history"]["updates"]["rows"]] == [2]
    known, _ = exporter.page.state("", None, "", first["cursor"])
    later = reply["history"]["cursor"]
    assert exporter.page.state("", None, known, later) == (known, None)


def test_a_history_has_the_last_twenty_updates_of_each_head() -> None:
    exporter = quiet()
    exporter.emit(started())
    for number in range(25):
        values = {"entropy": 0.5, "grad_norm": number / 10, "ratio_max": 1.0}
        exporter.emit(heads_update(1.0 + number, op=values))
    reply = history(exporter)
    assert reply["heads"]["columns"] == ["entropy", "gradient", "ratio"]
    rows = reply["heads"]["rows"]
    assert [row[0] for row in rows] == list(range(6, 26))
    assert rows[-1][1]["op"] == [0.5, 2.4, 1.0]
    assert history(exporter, reply["cursor"])["heads"]["rows"] == []


def test_ten_viewers_at_once_share_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = quiet()
    exporter.emit(started())
    made = []
    capture = exporter.page._capture
    monkeypatch.setattr(exporter.page, "_capture", lambda *given: made.append(1) or capture(*given))
    for _ in range(10):
        exporter.page.state("", None, "")
    assert len(made) == 1


def test_a_silent_run_is_stalled_by_the_rule_and_a_finished_one_is_not() -> None:
    clock = [1000.0]
    exporter = quiet()
    exporter.page._clock = lambda: clock[0]
    exporter.emit(started())
    (entry,) = exporter._runs.current.values()
    entry.history.arrived = 1000.0
    for number in range(1, 11):
        exporter.emit(update(number * 30.0))  # an update every 30 s
    entry.history.arrived = 1000.0
    clock[0] = 1089.0
    assert state(exporter)["runs"][0]["state"] == "running"
    clock[0] = 1091.0
    run = state(exporter)["runs"][0]
    assert (run["state"], run["verdict"]["word"]) == ("stalled", "stalled")
    assert run["silence"] == pytest.approx(91)
    exporter.mark_ended(None)
    assert state(exporter)["runs"][0]["state"] == "finished"


def test_the_verdict_names_number_bound_part_and_runbook() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(heads_update(1.0, blueprint={"entropy": 0.5, "grad_norm": 6.214}))
    (reason,) = state(exporter)["runs"][0]["verdict"]["reasons"]
    assert reason["text"] == "gradient 6.21, above 5"
    assert (reason["subject"], reason["part"], reason["level"]) == ("Blueprint", "heads", "warn")
    assert reason["runbook"] == "alerts/runbooks/EsperHeadGradientOutOfRange.md"


def test_a_head_that_stays_out_of_range_breaks_the_run() -> None:
    exporter = quiet()
    exporter.emit(started())
    for number in range(5):
        exporter.emit(heads_update(1.0 + number, op={"entropy": 0.5, "grad_norm": 8.0}))
    assert state(exporter)["runs"][0]["verdict"]["word"] == "broken"


def test_a_latch_breaks_the_run_and_a_failure_names_itself() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0, head_inf_detected={"style": True}))
    run = state(exporter)["runs"][0]
    assert run["verdict"]["word"] == "broken"
    assert run["verdict"]["reasons"][0]["text"] == "made Inf at update 1: latched"
    assert state(recorded("run2b"))["runs"][0]["verdict"]["word"] == "failed"


def test_everything_about_an_environment() -> None:
    reply = state(recorded("run1", 6000), env=0)["run"]["env"]
    assert len(reply["actions"]) <= 50
    assert set(reply["actions"]) <= {
        "WAIT",
        "GERMINATE",
        "SET_ALPHA_TARGET",
        "PRUNE",
        "FOSSILIZE",
        "ADVANCE",
    }
    assert reply["counterfactual"]["slots"]
    assert reply["best_runs"][0]["actions"]
    assert reply["best_runs"][0]["peak"] >= reply["best_runs"][0]["final"]


def test_a_rollback_marks_its_update_and_its_environment() -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0))
    exporter.emit(
        event("TOLARIA_ROLLBACK", {"env_id": 1, "device": "cpu", "reason": "divergence"}, 2.0)
    )
    assert history(exporter)["marks"][0]["kind"] == "rollback"
    rows = state(exporter)["run"]["envs"]["rows"]
    assert [row[1] for row in rows] == ["initializing", "rollback"]


def test_sixty_four_by_nine_keeps_the_schema() -> None:
    reply = state(wide(epochs=3), env=63)
    assert len(reply["run"]["envs"]["rows"]) == 64
    assert {len(row[-1]) for row in reply["run"]["envs"]["rows"]} == {9}
