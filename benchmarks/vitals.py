"""What sampling the machine costs, and what a GPU driver that hangs costs scrapes and steps."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from benchmarks.measure import Result, cpu_seconds
from esper_exporter import Exporter
from esper_exporter.probes.gpu.fake import FakeDriver
from esper_exporter.probes.gpu.gpu_sampler import GpuSampler
from esper_exporter.probes.host.host_sampler import HostSampler
from esper_exporter.probes.samples import Cells

GPUS = 8
SCRAPES = 15
STEPS = 150
STEP_ROUNDS = 4000


class _Hanging(FakeDriver):
    """A driver whose calls do not come back while the gate is closed, as a call into a library
    that blocks: without the interpreter's lock."""

    def __init__(self) -> None:
        super().__init__(1)
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.gate.set()

    def gpus(self) -> tuple[Sequence[Any], list[str]]:
        (gpu,), errors = super().gpus()
        return [_Gpu(gpu, self.gate, self.waiting)], errors


class _Gpu:
    def __init__(self, gpu: Any, gate: threading.Event, waiting: threading.Event) -> None:
        self._gpu, self._gate, self._waiting = gpu, gate, waiting
        self.identity, self.instances = gpu.identity, gpu.instances

    def read(self, field: str) -> Cells:
        if not self._gate.is_set():
            self._waiting.set()
            self._gate.wait()
        return self._gpu.read(field)


def _step() -> int:
    total = 0
    for number in range(STEP_ROUNDS):
        total += number * number % 7
    return total


def _median_of(work: Callable[[], object], times: int) -> float:
    spans = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        spans.append(time.perf_counter() - begun)
    return median(spans)


def _while_it_hangs(rounds: int) -> list[Result]:
    driver = _Hanging()
    exporter = Exporter(
        port=0,
        state_dir="off",
        watch_process=False,
        gpu_vitals="on",
        host_vitals="off",
        gpu_driver=driver,
        vitals_interval=0.1,
    )
    exporter.start()
    event = {
        "event_type": "ANALYTICS_SNAPSHOT",
        "timestamp": "2026-06-01T08:00:00+00:00",
        "data": {"kind": "last_action", "env_id": 0},
    }

    def scrape() -> None:
        urllib.request.urlopen(f"{exporter.url}/metrics").read()

    def step() -> None:
        _step()
        exporter.emit(event)

    measured: dict[str, list[tuple[float, float]]] = {"a scrape": [], "a training step": []}
    for number in range(rounds):
        pair: dict[bool, dict[str, float]] = {}
        for hanging in (True, False) if number % 2 else (False, True):
            if not hanging:
                driver.gate.set()
                driver.waiting.clear()
            else:
                driver.gate.clear()
                assert driver.waiting.wait(60)
            pair[hanging] = {
                "a scrape": _median_of(scrape, SCRAPES),
                "a training step": _median_of(step, STEPS),
            }
        for name, pairs in measured.items():
            pairs.append((pair[True][name], pair[False][name]))
    driver.gate.set()
    exporter.close()
    return [
        Result(
            f"vitals: {name} while NVML hangs / not",
            median(one for one, _ in pairs),
            None,
            median(one / other for one, other in pairs),
            "s",
            1.1,
            more=False,
            note="a call of a simulated driver blocks; medians of interleaved rounds",
        )
        for name, pairs in measured.items()
    ]


def run(rounds: int) -> list[Result]:
    gpus = GpuSampler(FakeDriver(GPUS), lambda _report: None)
    host = HostSampler(lambda _report: None)
    results = [*_while_it_hangs(rounds)]
    for name, step, note in (
        (f"vitals: a sample of {GPUS} GPUs", gpus.step, "simulated: without the driver's own time"),
        ("vitals: a sample of host and process", host.step, "every 5 s, on a separate thread"),
    ):
        step()
        cost = median(cpu_seconds(step, 20) for _ in range(rounds))
        results.append(Result(name, cost, None, None, "s", 0.01, more=False, note=note))
    return results
