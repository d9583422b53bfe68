"""The machine on the page of a live exporter, and how little a driver that hangs matters."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import prometheus_client
import pytest

from esper_exporter import Exporter
from esper_exporter.probes.gpu.driver import Gpu
from esper_exporter.probes.gpu.fake import FakeDriver
from esper_exporter.probes.samplers import local_rank
from esper_exporter.probes.samples import Cells
from esper_exporter.settings import read_settings
from support.pages import value, values
from support.recordings import telemetry_lines

STAMP = "esper_gpu_last_sample_timestamp_seconds"


class Gated:
    """A GPU of which one field does not come back while the gate is closed."""

    def __init__(self, gpu: Gpu, gate: threading.Event, waiting: threading.Event) -> None:
        self._gpu = gpu
        self._gate = gate
        self._waiting = waiting
        self.identity = gpu.identity
        self.instances = gpu.instances

    def read(self, field: str) -> Cells:
        if field == "power" and not self._gate.is_set():
            self._waiting.set()
            self._gate.wait(60)
        return self._gpu.read(field)


class HangingDriver(FakeDriver):
    """The second of two GPUs hangs while the gate is closed; ``passes`` counts passes begun."""

    def __init__(self) -> None:
        super().__init__(2)
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.gate.set()
        self.passed = threading.Semaphore(0)

    def gpus(self) -> tuple[Sequence[Any], list[str]]:
        first, second = super().gpus()[0]
        return [first, Gated(second, self.gate, self.waiting)], []

    def cuda_devices(self) -> list[Any]:
        self.passed.release()
        return super().cuda_devices()


@pytest.fixture
def hanging() -> Iterator[HangingDriver]:
    driver = HangingDriver()
    yield driver
    driver.gate.set()


def make(**options: Any) -> Exporter:
    return Exporter(port=0, state_dir="off", watch_process=False, run_id="night-7", **options)


def fetched(exporter: Exporter) -> str:
    with urllib.request.urlopen(f"{exporter.url}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def until(page: Callable[[], str], *names: str) -> str:
    """The page once it has these names; samplers put them there as fast as they can."""
    pause = threading.Event()
    for _ in range(600):
        text = page()
        if all(values(text, name) for name in names):
            return text
        pause.wait(0.05)
    raise AssertionError(f"still without {names}")


def test_while_a_driver_hangs_scrapes_events_and_the_end_do_not_wait(
    hanging: HangingDriver,
) -> None:
    exporter = make(gpu_vitals="on", gpu_driver=hanging, vitals_interval=0.1)
    exporter.start()
    for _ in range(2):
        assert hanging.passed.acquire(timeout=60)
    hanging.gate.clear()
    assert hanging.waiting.wait(60)
    # From here on the driver's call is blocked, and nothing below opens the gate.
    first = fetched(exporter)
    for line in telemetry_lines("run1")[:50]:
        exporter.emit_line(line)
    second = fetched(exporter)
    assert value(second, "esper_exporter_events_total") == 50
    assert value(first, STAMP, gpu="1") == value(second, STAMP, gpu="1")
    assert value(second, "esper_gpu_present") == 1
    exporter.close()
    assert not exporter.serving()
    assert not hanging.gate.is_set()


def test_after_it_the_numbers_go_on(hanging: HangingDriver) -> None:
    with make(gpu_vitals="on", gpu_driver=hanging, vitals_interval=0.1) as exporter:
        assert hanging.passed.acquire(timeout=60)
        hanging.gate.clear()
        assert hanging.waiting.wait(60)
        before = value(fetched(exporter), STAMP, gpu="1")
        while hanging.passed.acquire(blocking=False):
            pass
        hanging.gate.set()
        for _ in range(2):
            assert hanging.passed.acquire(timeout=60)
        after = value(fetched(exporter), STAMP, gpu="1")
    assert before is not None
    assert after is not None
    assert after > before


def test_by_default_the_page_has_the_machine_the_process_and_whether_there_is_a_gpu() -> None:
    with make(gpu_vitals="auto", host_vitals="auto", vitals_interval=0.1) as exporter:
        page = until(
            lambda: fetched(exporter),
            "esper_gpu_present",
            "esper_host_cpu_utilization_ratio",
            "process_cpu_seconds_total",
        )
    assert 0 <= (value(page, "esper_host_cpu_utilization_ratio") or 0) <= 1
    assert value(page, "python_gc_collections_total", generation="2") is not None
    assert values(page, "esper_exporter_internal_errors_total", where="vitals") == [0.0]


def test_what_is_off_is_not_there() -> None:
    before = set(threading.enumerate())
    with make(gpu_vitals="off", host_vitals="off") as exporter:
        exporter.emit_line(telemetry_lines("run1")[0])
        names = {line.split("{")[0].split()[0] for line in fetched(exporter).splitlines()}
        threads = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in names if name.startswith(("esper_gpu", "esper_host", "process_"))]
    assert not threads & {f"esper-exporter-{name}" for name in ("gpu", "xid", "host", "disks")}


@pytest.mark.parametrize(
    ("variable", "rank"),
    [
        ("LOCAL_RANK", 0),
        ("LOCAL_RANK", 3),
        ("SLURM_LOCALID", 1),
        ("OMPI_COMM_WORLD_LOCAL_RANK", 2),
        ("MPI_LOCALRANKID", 1),
    ],
)
def test_a_process_knows_its_number_on_its_machine(variable: str, rank: int) -> None:
    assert local_rank({variable: str(rank)}) == rank
    assert local_rank({variable: "?"}) == 0


@pytest.mark.parametrize(("reported", "whole"), [("auto", False), ("on", True)])
def test_the_second_process_of_a_machine_reports_only_itself_by_default(
    monkeypatch: pytest.MonkeyPatch, reported: str, whole: bool
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with make(host_vitals=reported, gpu_vitals=reported, vitals_interval=0.1) as exporter:
        page = until(lambda: fetched(exporter), "process_cpu_seconds_total")
        if whole:
            page = until(lambda: fetched(exporter), "esper_host_cpus", "esper_gpu_present")
    assert bool(values(page, "esper_host_cpus")) is whole
    assert bool(values(page, "esper_gpu_present")) is whole


def test_it_can_be_started_and_closed_again_and_again() -> None:
    exporter = make(gpu_driver=FakeDriver(1), gpu_vitals="on", vitals_interval=0.1)
    for _ in range(3):
        exporter.start()
        exporter.start()
        until(lambda: fetched(exporter), STAMP)
        exporter.close()
    assert values(exporter.render().decode(), "esper_gpu_power_watts")


def test_when_it_is_closed_nothing_is_sampled_any_more() -> None:
    before = set(threading.enumerate())
    exporter = make(gpu_driver=FakeDriver(1), gpu_vitals="on", host_vitals="on")
    exporter.start()
    begun = {thread.name.rsplit("-")[-1]: thread for thread in set(threading.enumerate()) - before}
    exporter.close()
    for name in ("gpu", "host"):
        begun[name].join(60)
        assert not begun[name].is_alive()


def test_disks_are_reported_by_purpose(tmp_path: Any) -> None:
    options = {"telemetry_dir": tmp_path, "checkpoint_dir": tmp_path / "not" / "yet"}
    with make(host_vitals="on", vitals_interval=0.1, **options) as exporter:
        page = until(lambda: fetched(exporter), "esper_host_disk_free_bytes")
        page = until(lambda: fetched(exporter), "esper_host_disk_total_bytes")
        names = ("telemetry", "checkpoint")
        reported = [value(page, "esper_host_disk_total_bytes", directory=name) for name in names]
    assert reported[0] is not None
    assert len(values(page, "esper_host_disk_free_bytes")) <= 2


def test_a_registry_that_has_the_process_too_is_no_quarrel() -> None:
    with make(host_vitals="on", vitals_interval=0.1) as exporter:
        exporter.add_collector(prometheus_client.REGISTRY, "registry")  # type: ignore[arg-type]
        page = until(lambda: fetched(exporter), "process_cpu_seconds_total", "python_info")
        page = fetched(exporter)
    assert value(page, "esper_exporter_collector_success", collector="registry") == 1.0
    assert page.count("\nprocess_cpu_seconds_total ") == 1


def test_an_exporter_that_is_not_started_leaves_the_process_to_the_registry() -> None:
    exporter = make(host_vitals="on")
    exporter.add_collector(prometheus_client.REGISTRY, "registry")  # type: ignore[arg-type]
    assert exporter.render().count(b"\nprocess_cpu_seconds_total ") == 1


def test_a_registry_of_one_s_own_gets_no_second_process() -> None:
    exporter = make(host_vitals="on")
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    registry.register(exporter.collector())
    assert b"esper_exporter_events_total" in prometheus_client.generate_latest(registry)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("gpu_vitals", "yes"),
        ("host_vitals", ""),
        ("vitals_interval", 0.0),
        ("vitals_interval", float("inf")),
        ("gpu_slow_interval", -1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=name):
        read_settings({name: bad}, environ={})
