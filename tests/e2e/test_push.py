"""A real Prometheus, and VictoriaMetrics where it is installed, have what was pushed to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from support.ports import free_port
from support.programs import end, wait_until
from support.prometheus import prometheus
from support.pushed_run import TRAINER, trainer, wrapped
from support.trainer import STARTED, UPDATE, latching

LATCH = 'esper_tamiyo_head_nonfinite_latched{head="op",kind="nan"}'


class Store:
    """A server that takes remote write and answers queries."""

    def __init__(self, url: str) -> None:
        self.url = url

    def samples(self, selector: str) -> list[tuple[float, float]]:
        """The samples of the only series that matches; the end of it is none."""
        # Ahead: the mark of a series' end is younger than now.
        ahead = f"{time.time() + 300:.3f}"
        query = urllib.parse.urlencode({"query": f"{selector}[1h]", "time": ahead})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        assert len(result) <= 1
        values = result[0]["values"] if result else []
        # VictoriaMetrics shows the mark of the end too, as NaN.
        return [(t, float(v)) for t, v in values if v != "NaN"]

    def at(self, expression: str, moment: float) -> list[float]:
        """An instant query's values."""
        query = urllib.parse.urlencode({"query": expression, "time": f"{moment:.3f}"})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            return [float(each["value"][1]) for each in json.load(answer)["data"]["result"]]


@contextmanager
def real_prometheus(folder: Path, port: int) -> Iterator[Store]:
    with prometheus(folder, [], receives=True, port=port) as server:
        yield Store(server.url)


@contextmanager
def victoria_metrics(folder: Path, port: int) -> Iterator[Store]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "victoria-metrics",
                f"-storageDataPath={folder / 'data'}",
                f"-httpListenAddr=127.0.0.1:{port}",
                "-search.latencyOffset=0s",
                "-retentionPeriod=1",
                "-http.maxGracefulShutdownDuration=100ms",
                "-memory.allowedBytes=200MB",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_until(healthy, "VictoriaMetrics answers", 60.0, every=0.1)
        yield Store(url)
    finally:
        end(process)


Start = Callable[[Path, int], AbstractContextManager[Store]]
STORES: dict[str, Start] = {"prometheus": real_prometheus}
if shutil.which("victoria-metrics"):
    # `make cluster-store`, which installs it, tries it in any case.
    STORES["victoria-metrics"] = victoria_metrics


@pytest.fixture(params=STORES)
def start(request: pytest.FixtureRequest) -> Start:
    return STORES[request.param]


def new(port: int, state: Path, **arguments: Any) -> Exporter:
    return Exporter(
        port="off",
        share="off",
        state_dir=state,
        push=f"http://127.0.0.1:{port}/api/v1/write",
        push_interval=1,
        push_labels="cluster=north,instance=job-7",
        run_id="night-7",
        **arguments,
    )


def test_a_run_of_a_moment_is_stored_with_its_latch_and_its_end(
    start: Start, tmp_path: Path
) -> None:
    port = free_port()
    with start(tmp_path / "store", port) as store:
        with new(port, tmp_path / "state") as exporter:
            exporter.emit(STARTED)
            exporter.emit(latching())
        wait_until(lambda: store.samples(LATCH), "the latch is stored")
        assert store.samples(LATCH)[-1][1] == 1.0
        stored, number = store.samples('esper_run_finished{cluster="north",instance="job-7"}')[-1]
        assert number == 1.0
        # Two intervals long these are the newest values; then the series has ended.
        assert store.at("esper_run_finished", stored + 1.5) == [1.0]
        assert store.at("esper_run_finished", stored + 2.5) == []


def test_an_outage_of_the_receiver_and_its_restart_lose_no_sample(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    updates = "esper_tamiyo_updates_total"
    with new(port, state) as exporter:
        exporter.emit(STARTED)

        def train(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                train.number += 1  # type: ignore[attr-defined]
                data = {**UPDATE, "event_id": f"u{train.number}"}  # type: ignore[attr-defined]
                exporter.emit(data)
                time.sleep(0.1)

        train.number = 0  # type: ignore[attr-defined]
        with real_prometheus(tmp_path / "store", port) as store:
            train(2)
            wait_until(lambda: store.samples(updates), "the first samples")
        train(4)
        waiting = len(list(state.rglob("*.snappy")))
        assert waiting >= 3
        with real_prometheus(tmp_path / "store", port) as store:
            train(1)
            wait_until(lambda: not list(state.rglob("*.snappy")), "the backlog is sent", 120.0)
            exporter.close()
            wait_until(
                lambda: store.samples("esper_run_finished")[-1][1] == 1.0, "the end is stored"
            )
            times = [moment for moment, _ in store.samples(updates)]
            page = exporter.render().decode()
    # One sample a page, evenly: as many as there were pages, none more than an interval apart,
    # but for what a busy machine delays.
    assert len(times) == len(set(times))
    assert f'\n{"esper_exporter_push_samples_dropped_total"}{{reason="refused"}} 0' in page
    assert 'push_samples_dropped_total{reason="bytes"} 0' in page
    assert len(times) >= waiting + 3


def test_a_run_that_is_started_again_at_once_under_its_name_loses_no_end(tmp_path: Path) -> None:
    """Its first samples would be older than the marks of the end before."""
    port = free_port()
    with real_prometheus(tmp_path / "store", port) as store:
        for _ in range(2):
            with new(port, tmp_path / "state") as exporter:
                exporter.emit(STARTED)
            page = exporter.render().decode()
            assert 'push_samples_dropped_total{reason="refused"} 0' in page
        ends = partial(store.samples, "esper_run_finished")
        wait_until(lambda: [v for _, v in ends()].count(1.0) >= 2, "both ends are stored")


@pytest.mark.slow
def test_a_killed_run_that_nobody_scrapes_raises_the_alert_with_its_reason(tmp_path: Path) -> None:
    """And not the one for a run that is gone without a word."""
    port = free_port()
    rules = sorted((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))
    command = (sys.executable, TRAINER, "wait", "night-7")
    with prometheus(tmp_path, [], receives=True, port=port, rule_files=rules) as server:
        url = f"{server.url}/api/v1/write"
        with wrapped(tmp_path, url, *command, interval="5") as running:
            server.wait_for('esper_run_active{run_id="night-7"}', 1.0, 120.0)
            os.kill(trainer(running.pid), signal.SIGKILL)
            assert running.wait(180) == -signal.SIGKILL
        fired = 'ALERTS{alertname="EsperRunFailed",alertstate="firing",reason="killed"}'
        server.wait_for(fired, 1.0, 120.0)
        latched = 'ALERTS{alertname="EsperHeadNonFiniteLatched",alertstate="firing",head="op"}'
        server.wait_for(latched, 1.0, 120.0)
        failed = 'esper_run_failed{reason="killed"}'
        wait_until(lambda: server.value(failed) is None, "its series have ended", 120.0)
        assert server.query('ALERTS{alertname="EsperRunDied"}') == {}
        assert server.value(fired) == 1.0
