"""The machine, this process and its GPUs: read by separate threads, shown on every page."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.probes.gpu.driver import Driver
from esper_exporter.probes.gpu.gpu_report import GpuReport, XidReport
from esper_exporter.probes.gpu.gpu_sampler import GpuSampler
from esper_exporter.probes.gpu.nvml import Nvml
from esper_exporter.probes.gpu.xid import XidWatcher
from esper_exporter.probes.host.host_sampler import DiskSampler, HostReport, HostSampler
from esper_exporter.probes.samples import Cells
from esper_exporter.settings import OFF, ON, Settings
from esper_exporter.state.run import RunState

LOCAL_RANK_VARIABLES = (
    "LOCAL_RANK",
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
)


def local_rank(environ: Mapping[str, str] = os.environ) -> int:
    """The process' number on its machine, as its launcher reports it; 0 for one alone."""
    for name in LOCAL_RANK_VARIABLES:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return 0


def _load_libraries() -> None:
    """Import what the samplers read with, on the caller's thread. Not on theirs: importing these
    runs code from texts, and then Python forgets that a Ctrl-C ended the process."""
    # A reader that needs a broken one reports it.
    with suppress(Exception):
        import_module("psutil")
        import_module("prometheus_client")


ENDED_PROCESS_XIDS = frozenset({"43", "45"})
"""These follow from the end of a process; they are no fault of the GPU."""


class ReportRows(Protocol):
    """The rows of what the samplers found. All of it is called under the exporter's lock."""

    def show_gpus(self, report: GpuReport, xids: XidReport) -> None:
        """Show all GPUs and their errors."""

    def show_uses(self, report: GpuReport, runs: Iterable[RunState]) -> None:
        """Show which GPUs each run uses."""

    def show_host(self, report: HostReport) -> None:
        """Show machine and process."""

    def show_disks(self, disks: Mapping[str, Cells]) -> None:
        """Show the space of each directory."""


class Vitals:
    """Owns the samplers' threads, and hands what they found to ``rows``.

    A thread that hangs in a driver or a file system costs its own numbers, which stand still, and
    nothing else: reports are handed over whole, and no lock is held while they are made.
    ``gpu_driver`` replaces NVML; two threads use it. ``on_error`` is called when a
    sampler fails that should not.
    """

    def __init__(
        self,
        rows: ReportRows,
        settings: Settings,
        gpu_driver: Driver | None,
        on_error: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._driver = gpu_driver
        self._on_error = on_error
        self._rows = rows
        self._stop: threading.Event | None = None
        self._gpus: GpuReport | None = None
        self._xids = XidReport()
        self.on_gpu_fault: Callable[[str, str, str, int], object] = lambda *_: None
        """Called on the sampler's thread with GPU, UUID, kind and how often, at each XID."""
        self._host: HostReport | None = None
        self._disks: Mapping[str, Cells] | None = None

    def start(self, of_process_only: bool = False) -> None:
        """Begin to sample. Harmless when that is done already.

        With ``of_process_only`` another process samples the machine and its GPUs, unless the
        settings demand it of this one.
        """
        if self._stop is not None:
            return
        stop = self._stop = threading.Event()
        settings = self._settings
        if settings.gpu_vitals != OFF or settings.host_vitals != OFF:
            _load_libraries()
        first = local_rank() == 0 and not of_process_only
        if settings.gpu_vitals != OFF:
            whole = settings.gpu_vitals == ON or first or self._driver is not None
            self._start_gpus(stop, whole)
        if settings.host_vitals != OFF:
            host = HostSampler(self._keep_host, whole=settings.host_vitals == ON or first)
            self._thread("host", host.step, stop)
            directories = self._directories()
            if directories:
                self._thread("disks", DiskSampler(self._keep_disks, directories).step, stop)

    def _start_gpus(self, stop: threading.Event, whole: bool) -> None:
        sampler = GpuSampler(
            self._driver or Nvml(),
            self._keep_gpus,
            whole=whole,
            slow_every=self._settings.gpu_slow_interval,
        )
        self._thread("gpu", sampler.step, stop, lambda: sampler.done, sampler.close)
        if whole:
            watcher = XidWatcher(self._driver or Nvml(), self._keep_xids)
            self._thread("xid", watcher.step, stop, lambda: watcher.done, watcher.close)

    def _directories(self) -> dict[str, Path]:
        settings = self._settings
        paths = {
            "telemetry": settings.telemetry_dir,
            "checkpoint": settings.checkpoint_dir,
            "state": settings.state_dir,
        }
        return {name: path for name, path in paths.items() if path is not None}

    def _thread(
        self,
        name: str,
        step: Callable[[], float | None],
        stop: threading.Event,
        done: Callable[[], bool] = lambda: False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Repeat a step until it is done or ``stop`` is set; it returns the pause to make, None for
        the usual one. Nothing waits for the thread's end: a step may never return."""

        def run() -> None:
            while not stop.is_set() and not done():
                pause: float | None = None
                try:
                    pause = step()
                except Exception:
                    self._on_error()
                stop.wait(self._settings.vitals_interval if pause is None else pause)
            close()

        start_daemon(run, f"esper-exporter-{name}")

    def stop(self) -> None:
        """Sample no more, without waiting for what is being read; the numbers stay."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    @property
    def reports_process(self) -> bool:
        """Whether the page has prometheus_client's metrics of this process."""
        return self._host is not None

    def reports(self) -> tuple[GpuReport | None, HostReport | None, Mapping[str, Cells] | None]:
        """What the samplers found last: GPUs, machine and process, disks."""
        return self._gpus, self._host, self._disks

    def refresh(self, runs: Iterable[RunState]) -> None:
        """Write the rows, under the exporter's lock."""
        gpus = self._gpus
        if gpus is not None:
            self._rows.show_gpus(gpus, self._xids)
            self._rows.show_uses(gpus, runs)
        if self._host is not None:
            self._rows.show_host(self._host)
        if self._disks is not None:
            self._rows.show_disks(self._disks)

    def _keep_gpus(self, report: GpuReport) -> None:
        self._gpus = report

    def _keep_xids(self, report: XidReport) -> None:
        before, self._xids = self._xids.counts, report
        for (gpu, uuid, xid), count in report.counts.items():
            if count > before.get((gpu, uuid, xid), 0) and xid not in ENDED_PROCESS_XIDS:
                self.on_gpu_fault(gpu, uuid, f"xid_{xid}", count)

    def _keep_host(self, report: HostReport) -> None:
        self._host = report

    def _keep_disks(self, disks: Mapping[str, Cells]) -> None:
        self._disks = disks
