"""A finished run as history: the blocks made of it answer with the recording's own values."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.command import run
from support.programs import program
from support.prometheus import prometheus
from support.recordings import telemetry, telemetry_lines

RUN1 = [json.loads(line) for line in telemetry_lines("run1")]


def when(event: dict[str, object]) -> float:
    return datetime.fromisoformat(str(event["timestamp"])).timestamp()


def sample_times(written: str) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in written.splitlines() if line[0] != "#"]


def test_a_server_filled_from_a_recording_answers_with_its_values_at_their_times(
    tmp_path: Path,
) -> None:
    out = tmp_path / "runs.om"
    done = run(
        *("backfill", telemetry("run1"), telemetry("run2b"), "--out", out, "--step", 5),
        *("--label", "job=esper", "--label", 'instance=a "b"\\'),
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"samples from 8,188 lines" in done.stderr
    made = subprocess.run(
        [
            *(program("promtool"), "tsdb", "create-blocks-from", "openmetrics"),
            *(out, tmp_path / "server" / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    began = when(RUN1[0])
    run_id = f"{RUN1[0]['data']['episode_id']}-{datetime.fromtimestamp(began, UTC):%Y%m%dT%H%M%SZ}"
    updates = [event for event in RUN1 if event["event_type"] == "PPO_UPDATE_COMPLETED"]
    checked = 0
    with prometheus(tmp_path / "server", []) as server:

        def shown(expression: str, moment: float) -> list[float]:
            result = server.api("query", query=expression, time=f"{moment:.3f}")["result"]
            return [float(series["value"][1]) for series in result]

        own = f'{{run_id="{run_id}"}}'
        labelled = r'count(esper_run_active{job="esper",instance="a \"b\"\\"})'
        assert shown(labelled, began + 5.0) == [2.0]  # run2b was recorded at the same time
        for step in range(1, int((when(RUN1[-1]) - began) // 5)):
            moment = round(began + 5 * step, 3)
            before = [event for event in updates if when(event) <= moment]
            assert shown(f"esper_tamiyo_updates_total{own}", moment) == [len(before)]
            losses = [before[-1]["data"]["policy_loss"]] if before else []
            assert shown(f"esper_tamiyo_policy_loss{own}", moment) == losses
            checked += len(losses)
        assert checked > 3
        end = when(RUN1[-1]) + 1
        assert shown(f"esper_tamiyo_updates_total{own}", end) == [14]
        assert shown(f"sum(esper_run_events_total{own})", end) == [7412]
        latched = "sum(esper_tamiyo_head_nonfinite_latched) by (run_id) > 0"
        ended = when(json.loads(telemetry_lines("run2b")[-1])) + 1
        assert shown(latched, ended) == [2]
        assert shown('{__name__=~"esper_exporter.*"}', ended) == []


def test_unusable_lines_are_reported_and_the_rest_is_written(tmp_path: Path) -> None:
    lines = list(telemetry_lines("run1")[:200])
    odd = json.loads(lines[100]) | {"timestamp": "2021-01-01T00:00:00+00:00"}
    lines[100] = json.dumps(odd).encode()
    lines[50] = b"{not json"
    recording = tmp_path / "some.jsonl"
    recording.write_bytes(b"\n".join(lines))
    out = tmp_path / "some.om"
    done = run("backfill", recording, "--out", out)
    assert done.returncode == 1
    assert b"1 lines were unusable; 1 lines with a time out of order" in done.stderr
    times = sample_times(out.read_text())
    assert times == sorted(times)
    assert min(times) >= when(RUN1[0]) - 0.001
    assert out.read_text().endswith("# EOF\n")


def test_a_silence_is_not_filled_with_what_was_true_before_it(tmp_path: Path) -> None:
    begun, other = (json.loads(line) for line in telemetry_lines("run1")[:2])
    later = other | {"timestamp": "2026-11-21T12:00:00+00:00"}
    begun["timestamp"] = "2026-11-21T08:00:00+00:00"
    recording = tmp_path / "silent.jsonl"
    recording.write_text(json.dumps(begun) + "\n" + json.dumps(later))
    out = tmp_path / "silent.om"
    assert run("backfill", recording, "--out", out).returncode == 0
    start = when(begun)
    offsets = sorted({moment - start for moment in sample_times(out.read_text())})
    assert offsets == [*range(0, 300, 15), 4 * 3600]


def test_a_run_that_appears_twice_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "twice.om"
    done = run("backfill", telemetry("run2b"), telemetry("run2b"), "--out", out)
    assert done.returncode == 1
    assert re.search(rb"run \S+ appears twice", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_the_samples_have_already_is_refused(tmp_path: Path) -> None:
    done = run("backfill", telemetry("run2b"), "--out", tmp_path / "out", "--label", "head=op")
    assert done.returncode == 1
    assert b"--label head: the samples already have this label" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("x",),
        ("x", "--out", "y", "--step", "0"),
        ("--out", "y"),
        ("x", "--out", "y", "--label", "job"),
        ("x", "--out", "y", "--label", "__name__=up"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run("backfill", *arguments).returncode == 2


def test_a_damaged_recording_gives_what_can_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"\n".join(telemetry_lines("run1")[:500]))[:-20])
    out = tmp_path / "broken.om"
    done = run("backfill", broken, "--out", out)
    assert done.returncode == 1
    assert b"middle of its gzip data" in done.stderr
    assert sample_times(out.read_text())
