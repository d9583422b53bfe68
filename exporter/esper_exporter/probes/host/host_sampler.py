"""Sample the machine and this process; values that the platform lacks are absent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_exporter.health import MEMORY_CRITICAL
from esper_exporter.probes.host.cgroup import read_cgroup
from esper_exporter.probes.samples import Cell, Cells

logger = logging.getLogger("esper_exporter")

IDLE = ("idle", "iowait")


@dataclass(frozen=True, slots=True)
class HostReport:
    """The machine's values, and those of this process and its container."""

    host: Cells = field(default_factory=dict)
    process: Cells = field(default_factory=dict)


class HostSampler:
    """Samples machine and process at each `step`, on a separate thread.

    It calls ``publish`` with each report. ``whole`` False leaves the machine to another process.
    ``cgroup`` reads the container's limits; prometheus_client's collectors read the process's CPU,
    memory, files and garbage; psutil reads the rest.
    """

    def __init__(
        self,
        publish: Callable[[HostReport], None],
        *,
        whole: bool = True,
        cgroup: Callable[[], Cells] = read_cgroup,
    ) -> None:
        self._publish = publish
        self._cgroup = cgroup
        self._cpu_before: Any = None
        self._failed: set[str] = set()
        self._host = (self._cpu, self._memory, self._swap, self._load) if whole else ()
        self._process = (self._limits, self._threads, self._own, self._garbage)

    def step(self) -> None:
        """Read everything once. Never raises."""
        self._publish(HostReport(self._gather(self._host), self._gather(self._process)))

    def _gather(self, readings: tuple[Callable[[], Cells], ...]) -> Cells:
        cells: dict[Cell, float] = {}
        for reading in readings:
            try:
                cells.update(reading())
            except Exception as error:
                name = reading.__name__
                if name not in self._failed:
                    self._failed.add(name)
                    logger.info("host vitals: no %s: %s", name.strip("_"), error)
        return cells

    def _cpu(self) -> Cells:
        """CPU share since the previous reading; empty the first time."""
        import psutil

        now = psutil.cpu_times()
        before, self._cpu_before = self._cpu_before, now
        cpus = psutil.cpu_count()
        cells: dict[Cell, float] = {("esper_host_cpus",): float(cpus)} if cpus else {}
        if before is not None:
            # A guest's time is part of user's and of nice's.
            passed = {
                name: getattr(now, name) - getattr(before, name)
                for name in now._fields
                if not name.startswith("guest")
            }
            total = sum(passed.values())
            idle = sum(passed.get(name, 0.0) for name in IDLE)
            if total > 0:
                share = min(1.0, max(0.0, 1.0 - idle / total))
                cells[("esper_host_cpu_utilization_ratio",)] = share
        return cells

    def _memory(self) -> Cells:
        import psutil

        memory = psutil.virtual_memory()
        return {
            ("esper_host_memory_total_bytes",): float(memory.total),
            ("esper_host_memory_available_bytes",): float(memory.available),
            ("esper_host_memory_used_bytes",): float(memory.used),
        }

    def _swap(self) -> Cells:
        import psutil

        memory = psutil.swap_memory()
        return {
            ("esper_host_swap_total_bytes",): float(memory.total),
            ("esper_host_swap_used_bytes",): float(memory.used),
        }

    def _load(self) -> Cells:
        import psutil

        loads = zip((1, 5, 15), psutil.getloadavg(), strict=True)
        return {(f"esper_host_load{minutes}",): load for minutes, load in loads}

    def _limits(self) -> Cells:
        """The container's limits, and whether memory runs out in it or on the machine."""
        import psutil

        cells = dict(self._cgroup())
        memory = psutil.virtual_memory()
        shares = [memory.used / memory.total] if memory.total else []
        used = cells.get(("esper_host_cgroup_memory_used_bytes",))
        limit = cells.get(("esper_host_cgroup_memory_limit_bytes",))
        if used is not None and limit:
            shares.append(used / limit)
        if shares:
            cells[("esper_host_memory_alarm",)] = float(max(shares) > MEMORY_CRITICAL)
        return cells

    def _threads(self) -> Cells:
        import psutil

        return {("esper_host_process_threads",): float(psutil.Process().num_threads())}

    def _own(self) -> Cells:
        from prometheus_client import ProcessCollector

        return _samples(ProcessCollector(registry=None))

    def _garbage(self) -> Cells:
        from prometheus_client import GC_COLLECTOR

        return _samples(GC_COLLECTOR)


def _samples(collector: Any) -> Cells:
    return {
        (sample.name, *sample.labels.values()): float(sample.value)
        for family in collector.collect()
        for sample in family.samples
    }


class DiskSampler:
    """Reads the free space where the training writes, on a separate thread: a network file system
    may hang.

    ``directories`` maps a purpose to a path; for one that does not exist yet, it checks the nearest
    existing parent.
    """

    def __init__(
        self, publish: Callable[[Mapping[str, Cells]], None], directories: Mapping[str, Path]
    ) -> None:
        self._publish = publish
        self._directories = dict(directories)
        self._found: dict[str, Cells] = {}
        self._failed: set[str] = set()

    def step(self) -> None:
        """Read every directory once. Never raises."""
        import psutil

        for name, path in self._directories.items():
            self._found.pop(name, None)
            try:
                there = next(each for each in (path, *path.absolute().parents) if each.exists())
                usage = psutil.disk_usage(str(there))
                self._found[name] = {
                    ("esper_host_disk_total_bytes",): float(usage.total),
                    ("esper_host_disk_free_bytes",): float(usage.free),
                }
            except Exception as error:
                if name not in self._failed:
                    self._failed.add(name)
                    logger.info("host vitals: no disk space of the %s directory: %s", name, error)
            self._publish(dict(self._found))
