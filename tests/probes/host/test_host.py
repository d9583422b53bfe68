"""Machine and process as psutil and prometheus_client tell of them, each reading by itself."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import columns_of
from esper_exporter.probes.host.host_sampler import DiskSampler, HostReport, HostSampler
from esper_exporter.probes.samples import Cells

Times = namedtuple("Times", "user system idle iowait guest")
GIB = 2**30


def sampled(steps: int = 2, **options: Any) -> HostReport:
    reported: list[HostReport] = []
    sampler = HostSampler(reported.append, **options)
    for _ in range(steps):
        sampler.step()
    return reported[-1]


def test_every_reported_value_is_in_the_catalogue_and_plausible() -> None:
    report = sampled()
    known = {
        (column.metric.name, *(value for _, value in column.labels)): metric.block
        for metric in catalogue().metrics
        for column in columns_of(metric)
    }
    assert {known[cell] for cell in report.host} == {"host"}
    assert {known[cell] for cell in report.process} == {"process"}
    assert report.host["esper_host_memory_total_bytes",] == psutil.virtual_memory().total
    assert report.host["esper_host_cpus",] == psutil.cpu_count()
    assert report.process["process_start_time_seconds",] > 1e9
    assert report.process["esper_host_process_threads",] >= 1
    assert report.process["process_resident_memory_bytes",] > 1e6


def test_the_share_of_cpu_is_of_the_time_between_two_readings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A guest's time is part of user's.
    reported = [
        Times(100, 50, 800, 50, 30),
        Times(130, 60, 850, 60, 60),
        Times(130, 60, 850, 60, 60),
    ]
    monkeypatch.setattr(psutil, "cpu_times", lambda: reported.pop(0))
    shares = [
        sampled_.host.get(("esper_host_cpu_utilization_ratio",))
        for sampled_ in reports(HostSampler, 3)
    ]
    assert shares == [None, pytest.approx(0.4), None]


def reports(kind: type[HostSampler], steps: int) -> list[HostReport]:
    reported: list[HostReport] = []
    sampler = kind(reported.append)
    for _ in range(steps):
        sampler.step()
    return reported


def test_a_reading_that_fails_costs_itself_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esper_exporter")

    def broken() -> Any:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "swap_memory", broken)
    report = sampled(3)
    assert ("esper_host_swap_total_bytes",) not in report.host
    assert ("esper_host_load1",) in report.host
    assert caplog.text.count("no swap") == 1


def test_a_process_only_sampler_reports_nothing_about_the_machine() -> None:
    report = sampled(whole=False)
    assert report.host == {}
    assert report.process


@pytest.mark.parametrize(
    ("used", "limit", "machine", "alarm"),
    [
        (9.1, 10, 0.5, 1.0),
        (9.0, 10, 0.5, 0.0),
        (None, None, 0.91, 1.0),
        (None, None, 0.9, 0.0),
        (5, None, 0.2, 0.0),
    ],
)
def test_more_than_nine_tenths_of_machine_or_container_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch,
    used: float | None,
    limit: float | None,
    machine: float,
    alarm: float,
) -> None:
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(used=machine * GIB, total=GIB)
    )
    reported = {"used": used, "limit": limit}
    cells = {
        (f"esper_host_cgroup_memory_{name}_bytes",): float(value)
        for name, value in reported.items()
        if value is not None
    }
    report = sampled(cgroup=lambda: cells)
    assert report.process["esper_host_memory_alarm",] == alarm


def test_a_directory_that_does_not_exist_yet_is_on_the_disk_above_it(tmp_path: Path) -> None:
    reported: list[Mapping[str, Cells]] = []
    path = tmp_path / "not" / "yet"
    DiskSampler(reported.append, {"checkpoint": path, "telemetry": tmp_path}).step()
    free = os.statvfs(tmp_path)
    assert (
        reported[-1]["checkpoint"]["esper_host_disk_total_bytes",] == free.f_blocks * free.f_frsize
    )
    assert set(reported[-1]) == {"checkpoint", "telemetry"}
    assert not path.exists()


def test_a_disk_that_cannot_be_read_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = psutil.disk_usage

    def partly(path: str) -> Any:
        if path.endswith("stale"):
            raise OSError(116, "Stale file handle")
        return real(path)

    (tmp_path / "stale").mkdir()
    monkeypatch.setattr(psutil, "disk_usage", partly)
    reported: list[Mapping[str, Cells]] = []
    DiskSampler(reported.append, {"state": tmp_path / "stale", "telemetry": tmp_path}).step()
    assert set(reported[-1]) == {"telemetry"}
