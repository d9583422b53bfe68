"""A real Prometheus scrapes a replayed training, while it runs and at its end."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS
from support.command import run, serving
from support.pages import samples, value, values
from support.programs import program
from support.prometheus import prometheus
from support.recordings import telemetry, telemetry_lines

LATCHED = "esper_tamiyo_head_nonfinite_latched"
SKIPPED = "esper_tamiyo_updates_skipped_total"


def last_update(name: str) -> dict[str, object]:
    """The payload of the last policy update of a recording."""
    line = [line for line in telemetry_lines(name) if b'"PPO_UPDATE_COMPLETED"' in line][-1]
    data: dict[str, object] = json.loads(line)["data"]
    return data


def test_a_query_returns_the_values_of_the_last_event(tmp_path: Path) -> None:
    last = last_update("run1")
    with (
        serving(telemetry("run1"), "--speed", 0, "--run-id", "night-7") as running,
        prometheus(tmp_path, [running.address]) as server,
    ):
        server.wait_for('esper_exporter_events_total{job="esper"}', 7412)
        for metric, field in {
            "esper_tamiyo_policy_loss": "policy_loss",
            "esper_tamiyo_explained_variance": "explained_variance",
            'esper_tamiyo_head_entropy_ratio{head="tempo"}': "head_tempo_entropy",
            'esper_tamiyo_head_grad_norm{head="op"}': "head_op_grad_norm",
        }.items():
            assert server.value(metric) == last[field], metric
        assert server.value("esper_tamiyo_updates_total") == 14
        assert server.value(f"sum({LATCHED})") == 0
        assert server.value("count(esper_run_info)") == 1
        runs = {dict(labels)["run_id"] for labels in server.query("esper_tamiyo_policy_loss")}
        assert runs == {"night-7"}


def test_prometheus_scrapes_without_a_warning(tmp_path: Path) -> None:
    with (
        serving("--recording", "run2b", "--speed", 0) as running,
        prometheus(tmp_path, [running.address], interval="200ms") as server,
    ):
        server.wait_for("esper_exporter_events_total", 776)
        (target,) = server.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        assert server.log.read_text() == ""


def test_the_run_that_nan_ended_shows_which_heads_and_which_updates(tmp_path: Path) -> None:
    with (
        serving("--recording", "run2b", "--speed", 0) as running,
        prometheus(tmp_path, [running.address]) as server,
    ):
        server.wait_for("esper_exporter_events_total", 776)
        latches = {
            (dict(labels)["head"], dict(labels)["kind"]): shown
            for labels, shown in server.query(LATCHED).items()
        }
        assert len(latches) == 16
        lit = {latch for latch, shown in latches.items() if shown == 1.0}
        assert lit == {("tempo", "nan"), ("op", "nan")}
        assert sum(latches.values()) == 2
        assert server.value(f'{SKIPPED}{{reason="nonfinite"}}') == 3
        assert server.value(f"sum({SKIPPED})") == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--recording", "run1"),
        ("--recording", "run1", "--until", 0),
        ("--recording", "run1", "--until", 3000),
        ("--recording", "run2b"),
    ],
)
def test_promtool_has_nothing_to_say_about_the_page(arguments: tuple[object, ...]) -> None:
    page = run("replay", *arguments, "--once").stdout
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


# -- no scrape sees half an update --------------------------------------------------------------

SAME_NUMBER = (
    "policy_loss",
    "value_loss",
    "entropy",
    "grad_norm",
    "advantage_mean",
    "return_p50",
    "value_mean",
    "q_spread",
    *(f"head_{head}_grad_norm" for head in (*HEADS, *AUX_HEADS)),
)
"""Fields of a synthetic update that all carry its number."""

SAME_VALUE = (
    "esper_tamiyo_policy_loss",
    "esper_tamiyo_value_loss",
    "esper_tamiyo_policy_entropy",
    "esper_tamiyo_grad_norm",
    "esper_tamiyo_advantage_mean",
    "esper_tamiyo_return_p50",
    "esper_tamiyo_value_mean",
    "esper_tamiyo_q_value_spread",
    "esper_tamiyo_head_grad_norm",
    # What is counted and observed moves in the same step as what is shown.
    "esper_tamiyo_updates_total",
    "esper_tamiyo_head_update_grad_norm_count",
)
"""Metrics whose every sample equals the number of the last update."""


def numbered_updates() -> Iterator[bytes]:
    """A run, as the real system writes it, whose k-th update carries k wherever it can."""
    started = json.loads(telemetry_lines("run1")[0])
    began = datetime.fromisoformat(started["timestamp"])
    yield json.dumps(started).encode()
    template = next(line for line in telemetry_lines("run1") if b'"PPO_UPDATE_COMPLETED"' in line)
    number = 0
    while True:
        number += 1
        event = json.loads(template)
        event["event_id"] = f"00000000-0000-4000-8000-{number:012d}"
        event["timestamp"] = (began + timedelta(seconds=number)).astimezone(UTC).isoformat()
        event["data"] |= dict.fromkeys(SAME_NUMBER, float(number)) | {"batch": number}
        yield json.dumps(event).encode()


def shown_numbers(page: str) -> set[float]:
    """The numbers of all updates that a page shows; 0 before the first."""
    reported = [
        line for line in page.splitlines() if re.match(rf"({'|'.join(SAME_VALUE)})[{{ ]", line)
    ]
    return set(samples("\n".join(reported) + "\n").values())


def test_no_scrape_sees_half_an_update_while_a_replay_runs_at_full_speed(tmp_path: Path) -> None:
    with Exporter(port=0, strict=True) as exporter:
        address = f"127.0.0.1:{exporter.port}"
        enough = threading.Event()

        def replay_at_full_speed() -> None:
            for line in numbered_updates():
                exporter.emit_line(line)
                if enough.is_set():
                    return

        replaying = threading.Thread(target=replay_at_full_speed)
        with prometheus(tmp_path, [address], interval="100ms") as server:
            replaying.start()
            try:
                pages = []
                for accept in ("text/plain", "application/openmetrics-text") * 40:
                    request = urllib.request.Request(
                        f"http://{address}/metrics", headers={"Accept": accept}
                    )
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        pages.append(answer.read().decode())
                server.wait_for("esper_exporter_scrapes_total > bool 100", 1.0)
            finally:
                enough.set()
                replaying.join(10)
            stored = server.samples(f'{{__name__=~"{"|".join(SAME_VALUE)}"}}')

    seen = [shown_numbers(page) for page in pages]
    assert [numbers for numbers in seen if len(numbers) != 1 and numbers] == []
    assert len({next(iter(numbers)) for numbers in seen if numbers}) > 20

    by_scrape: dict[float, set[float]] = {}
    for series in stored.values():
        for moment, number in series:
            by_scrape.setdefault(moment, set()).add(number)
    torn = {moment: numbers for moment, numbers in by_scrape.items() if len(numbers) != 1}
    assert torn == {}
    assert len(by_scrape) > 10
    assert len(set().union(*by_scrape.values())) > 10


def test_pages_of_a_recording_are_served_while_it_is_replayed_and_never_go_back() -> None:
    with serving("--recording", "run1", "--speed", 20) as running:
        counts = []
        while not counts or counts[-1] < 7412:
            page = running.page()
            counts.append(value(page, "esper_exporter_events_total") or 0.0)
            by_type = sum(values(page, "esper_run_events_total"))
            assert by_type == counts[-1]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
