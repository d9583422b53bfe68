"""Samplers' reports as a page; and a clock that does not move."""

from __future__ import annotations

from esper_exporter.metrics.exposition import TEXT, Page, capture
from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.table import ValueTable
from esper_exporter.metrics.vital_rows import VitalRows
from esper_exporter.probes.gpu.driver import Driver
from esper_exporter.probes.gpu.gpu_report import GpuReport, XidReport
from esper_exporter.probes.gpu.gpu_sampler import GpuSampler
from esper_exporter.probes.gpu.nvml import Nvml
from support.nvml import OUR_PID, ScriptedNvml

NOW = 1_790_000_000.0


class Clock:
    """A clock that the test advances."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Sampled:
    """A sampler over a scripted NVML (or another driver), and its last report."""

    def __init__(
        self, library: ScriptedNvml | None = None, driver: Driver | None = None, **options: object
    ) -> None:
        self.clock, self.timer = Clock(NOW), Clock()
        self.reports: list[GpuReport] = []
        chosen = driver or Nvml(lambda: library, lambda pid: pid == OUR_PID)
        self.sampler = GpuSampler(
            chosen, self.reports.append, clock=self.clock, timer=self.timer, **options
        )

    def step(self, seconds: float = 5.0) -> GpuReport:
        """One pass, so many seconds after the one before."""
        self.clock.now += seconds
        self.timer.now += seconds
        self.sampler.step()
        return self.report

    @property
    def report(self) -> GpuReport:
        return self.reports[-1]

    @property
    def page(self) -> str:
        return gpu_page(self.report)


def gpu_page(report: GpuReport, xids: XidReport | None = None) -> str:
    """The page of GPUs alone."""
    table = ValueTable(compiled().blocks)
    rows = VitalRows(table, compiled())
    rows.show_gpus(report, xids or XidReport())
    page = Page(compiled().catalogue.metrics, TEXT).render(capture(table, None))
    return page.decode()
