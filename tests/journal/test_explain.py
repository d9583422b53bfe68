"""What `explain` finds: in recordings of real runs with faults, and in run1 with faults put in."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from esper_exporter.journal.causes import CAUSES, FOLLOWS
from esper_exporter.journal.reading import read_runs
from esper_exporter.journal.report import SCHEMA, Report, explain

FAULTS = Path(__file__).parents[1] / "recordings" / "faults"
LATER = datetime.now(UTC) + timedelta(days=400)

REAL: dict[str, tuple[str, str | None, int | None]] = {
    "gradinf": ("gradient_nonfinite", None, 3),
    "infblue": ("head_inf", "blueprint", 2),
    "nanpart": ("head_nan", "style", 3),
    "rollback": ("rollbacks", None, 1),
    "nanend": ("head_nan", "slot", 3),
    "valnan": ("value_nonfinite", None, 3),
    "healthy": ("healthy", None, None),
    "gradnanearly": ("gradient_nonfinite", None, 3),
    "six": ("head_inf", "alpha_speed", 2),
    "healthy3": ("healthy", None, None),
    "twohead": ("head_inf", "style", 2),
    "debugnan": ("head_inf", "tempo", 3),
    "healthy6": ("healthy", None, None),
}
"""Recording of a real run → first cause, head, update. What was put in is in its README."""


def reports_of(path: Path) -> list[Report]:
    runs, _ = read_runs([path])
    found = [explain(run, LATER) for run in runs]
    schema = json.loads(SCHEMA.read_text())
    for report in found:
        jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), schema)
    return found


@pytest.mark.parametrize("name", REAL)
def test_the_first_cause_of_a_real_run(name: str) -> None:
    [report] = reports_of(FAULTS / f"{name}.jsonl.gz")
    assert (report["cause"], report["head"], report["update"]) == REAL[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("groups", ["healthy", "head_nan"]), ("groupsgrad", ["healthy", "gradient_nonfinite"])],
)
def test_each_group_has_its_own_cause(name: str, expected: list[str]) -> None:
    reports = reports_of(FAULTS / f"{name}.jsonl.gz")
    assert [report["group_id"] for report in reports] == ["A", "B"]
    assert [report["cause"] for report in reports] == expected
    assert reports[1]["update"] == 2


def test_the_recordings() -> None:
    with recording("run1") as path:
        [report] = reports_of(path)
    assert (report["verdict"], report["cause"]) == ("healthy", "healthy")
    with recording("run2b") as path:
        [report] = reports_of(path)
    assert (report["verdict"], report["cause"], report["head"]) == ("failed", "head_nan", "tempo")
    assert report["update"] == 3
    assert [each["cause"] for each in report["followed"]] == ["head_nan", "exception"]


Event = dict[str, Any]


def _in_update(number: int, **values: Any) -> Callable[[list[Event]], list[Event]]:
    """Put values into an update; a callable changes the value that is there."""

    def change(events: list[Event]) -> list[Event]:
        for event in events:
            data = event["data"]
            if event["event_type"] == "PPO_UPDATE_COMPLETED" and data["batch"] >= number:
                last = values.get("until", number)
                if data["batch"] > last:
                    continue
                for name, value in values.items():
                    if name != "until":
                        data[name] = value(data[name]) if callable(value) else value
        return events

    return change


def _end(reason: str, after: int, detail: str = "") -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        kept = []
        for event in events:
            kept.append(event)
            if event["event_type"] == "BATCH_EPOCH_COMPLETED" and (
                event["data"]["batch_idx"] == after
            ):
                break
        data = {"reason": reason, "detail": detail}
        return [*kept, {**kept[-1], "event_id": "e", "event_type": "RUN_ENDED", "data": data}]

    return change


def _gpu(events: list[Event]) -> list[Event]:
    changed = _end("exception", 6, "CUDA error: unspecified launch failure")(events)
    data = {"gpu": "0", "uuid": "GPU-1", "kind": "xid_79", "count": 1}
    return [*changed[:-1], {**changed[-1], "event_type": "GPU_FAULT", "data": data}, changed[-1]]


HEADS = ("op", "slot", "blueprint", "style", "tempo", "alpha_target", "alpha_speed", "alpha_curve")
PUT_IN: list[tuple[str, Callable[[list[Event]], list[Event]], str, str | None, int | None]] = [
    *(
        (f"nan-{head}", _in_update(3 + n, head_nan_detected={head: True}), "head_nan", head, 3 + n)
        for n, head in enumerate(HEADS)
    ),
    *(
        (
            f"inf-{head}",
            _in_update(12 - n, head_inf_detected={head: True}),
            "head_inf",
            head,
            12 - n,
        )
        for n, head in enumerate(HEADS)
    ),
    ("grad-nan", _in_update(5, pre_clip_grad_norm=math.nan), "gradient_nonfinite", None, 5),
    ("grad-inf", _in_update(9, pre_clip_grad_norm=math.inf), "gradient_nonfinite", None, 9),
    ("grad-count", _in_update(7, nan_grad_count=3), "gradient_nonfinite", None, 7),
    ("value-loss", _in_update(6, value_loss=math.nan), "value_nonfinite", None, 6),
    ("policy-loss", _in_update(6, policy_loss=math.nan), "gradient_nonfinite", None, 6),
    ("lstm", _in_update(6, rollout_lstm_has_inf=True), "value_nonfinite", None, 6),
    ("ratio-nan", _in_update(6, ratio_max=math.nan), "ratio_explosion", None, 6),
    ("explosion", _in_update(8, pre_clip_grad_norm=5e4), "gradient_explosion", None, 8),
    (
        "explosion-then-nan",
        lambda events: _in_update(9, head_nan_detected={"op": True})(
            _in_update(8, pre_clip_grad_norm=5e4)(events)
        ),
        "gradient_explosion",
        None,
        8,
    ),
    (
        "vanishing",
        _in_update(8, pre_clip_grad_norm=1e-5, grad_norm=1e-5, until=14),
        "gradient_vanishing",
        None,
        8,
    ),
    *(
        (
            f"collapse-{head}",
            _in_update(n, **{f"head_{head}_entropy": 1e-4}, until=14),
            "entropy_collapse",
            head,
            n,
        )
        for n, head in ((6, "op"), (7, "slot"), (8, "tempo"))
    ),
    ("kl-once", _in_update(6, kl_divergence=0.8), "trust_region", None, 6),
    ("kl-long", _in_update(7, kl_divergence=0.06, until=12), "trust_region", None, 7),
    ("clipped", _in_update(5, clip_fraction=0.6, until=9), "trust_region", None, 5),
    ("ratio", _in_update(6, ratio_max=40.0, head_op_ratio_max=40.0), "ratio_explosion", "op", 6),
    (
        "value-spread",
        _in_update(8, value_min=0.0, value_max=1e-4, until=14),
        "value_collapse",
        None,
        8,
    ),
    (
        "oom",
        _end("oom", 7, "CUDA out of memory. Tried to allocate 2 GiB"),
        "out_of_memory",
        None,
        8,
    ),
    ("oom-text", _end("exception", 7, "CUDA out of memory"), "out_of_memory", None, 8),
    ("killed", _end("killed", 4), "killed", None, 5),
    ("crash", _end("exception", 5, "KeyError: 'x'"), "exception", None, 6),
    (
        "raised",
        _end("nonfinite", 5, "ValueError: ppo_grad_norm must be finite, got inf"),
        "gradient_nonfinite",
        None,
        6,
    ),
    ("xid", _gpu, "gpu_fault", None, 7),
    ("finished", _end("finished", 14), "healthy", None, None),
]


@pytest.mark.parametrize(
    ("change", "cause", "head", "update"),
    [pytest.param(*each[1:], id=each[0]) for each in PUT_IN],
)
def test_the_first_cause_of_run1_with_a_fault_put_in(
    change: Callable[[list[Event]], list[Event]],
    cause: str,
    head: str | None,
    update: int | None,
    tmp_path: Path,
) -> None:
    with recording("run1") as path:
        events = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    file = tmp_path / "run.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in change(events)))
    [report] = reports_of(file)
    assert (report["cause"], report["head"], report["update"]) == (cause, head, update)


def test_the_table_of_what_follows_names_every_cause() -> None:
    assert set(FOLLOWS) | {"healthy"} == set(CAUSES)
    assert all(causes <= set(CAUSES) for causes in FOLLOWS.values())
    assert json.loads(SCHEMA.read_text())["properties"]["cause"]["enum"] == list(CAUSES)


@pytest.mark.parametrize("form", ["markdown", "html", "json"])
def test_the_command_writes_every_format(
    form: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with recording("run2b") as path:
        assert main(["explain", str(path), "--format", form]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert "head_nan" in text
    assert ("<svg" in text) == (form == "html")
    if form == "html":
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")


def test_names_in_telemetry_do_not_become_markup(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with recording("run2b") as path:
        lines = gzip.decompress(path.read_bytes()).decode()
    evil = "<img src=x onerror=alert(1)>\\u001b[2J"
    file = tmp_path / "evil.jsonl"
    file.write_text(lines.replace("ppo_44_20ep", evil).replace("[tempo]", f"[{evil}]"))
    for form in ("html", "markdown"):
        assert main(["explain", str(file), "--format", form]) == 0
        text = capsysbinary.readouterr().out.decode()
        assert "<img" not in text
        assert "\x1b" not in text


def test_a_source_that_holds_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("nothing\n")
    assert main(["explain", str(tmp_path / "x.jsonl")]) == 1
    assert main(["explain", str(tmp_path / "missing")]) == 1


def test_an_update_that_may_still_be_reported_is_not_missing() -> None:
    [run], _ = read_runs([FAULTS / "gradinf.jsonl.gz"])
    assert run.update_ran_at is not None
    when = run.update_ran_at[0]
    assert explain(run, when + timedelta(seconds=3))["verdict"] == "running"
    assert explain(run, when + timedelta(seconds=12))["cause"] == "gradient_nonfinite"


def test_other_json_lines_in_a_folder_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recording("run2b") as path:
        (tmp_path / "run.jsonl.gz").write_bytes(path.read_bytes())
    snapshot = {"after_seq": 1, "snapshot": {"event_log": [{"event_type": "TRAINING_STARTED"}]}}
    (tmp_path / "run.snapshots.jsonl").write_text(f"{json.dumps(snapshot)}\n" * 3)
    assert main(["explain", str(tmp_path), "--all", "--json"]) == 0
    shown = capsys.readouterr()
    assert [report["cause"] for report in json.loads(shown.out)] == ["head_nan"]
    assert shown.err == ""


def test_two_runs_are_compared(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    one, other = FAULTS / "groups.jsonl.gz", FAULTS / "groupsgrad.jsonl.gz"
    assert main(["compare", str(one), str(other)]) == 1  # each holds two groups
    runs, _ = read_runs([one])
    first, second = (f"{one}#{run.run_id}/{run.group_id}" for run in runs)
    capsysbinary.readouterr()
    assert main(["compare", first, second, "--format", "json"]) == 0
    reported = json.loads(capsysbinary.readouterr().out)
    assert reported["parts"]["update"] == 2
    assert reported["configuration"]["differs"] == []
    assert ["cause", "healthy", "head_nan"] in reported["results"]
    for form in ("markdown", "html"):
        assert main(["compare", first, second, "--format", form]) == 0
        assert "They part in update 2" in capsysbinary.readouterr().out.decode()


@pytest.mark.parametrize(
    ("field", "headline"),
    [
        ("policy_loss", "A gradient or the loss was not finite in update 6: NaN in policy loss."),
        ("value_loss", "The critic or its inputs were not finite in update 6: NaN in value loss."),
    ],
)
def test_a_loss_that_is_nan_is_named(
    field: str, headline: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with recording("run1") as path:
        events = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    changed = _in_update(6, **{field: math.nan})(events)
    file = tmp_path / "run.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in changed))
    assert main(["explain", str(file)]) == 0
    assert f"**{headline}" in capsysbinary.readouterr().out.decode()


def test_a_built_in_recording_is_named_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "run2b", "--format", "json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["head"] == "tempo"
    (tmp_path / "run2b").write_text("no telemetry\n")
    assert main(["explain", "run2b"]) == 1, "a file of that name comes first"


def test_recorded_snapshots_beside_telemetry_are_no_warning(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert main(["explain", str(FAULTS.parent), "--all"]) == 0
    assert capsysbinary.readouterr().err == b""
