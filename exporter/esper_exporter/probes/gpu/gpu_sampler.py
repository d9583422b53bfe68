"""Sample all GPUs, one field at a time; a failure loses that field only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from esper_exporter.log_once import Kinds
from esper_exporter.probes.gpu.driver import (
    OWN_FIELDS,
    SLOW_FIELDS,
    WHOLE_FIELDS,
    CudaDevice,
    Driver,
    DriverGone,
    Gpu,
    GpuLost,
    MigInstance,
    NoDriver,
    ReadError,
    Versions,
)
from esper_exporter.probes.gpu.gpu_report import GpuReport, GpuSample
from esper_exporter.probes.samples import Cell

logger = logging.getLogger("esper_exporter")

RETRY_SECONDS = 30.0
"""How long to wait before retrying a missing driver or a lost GPU."""

LASTING = frozenset({"not_supported", "function_not_found", "no_permission"})
"""Permanent errors: counted once, and not retried until the next listing of the GPUs."""


class GpuSampler:
    """Owns the GPUs' last values; `step` samples all GPUs once, on a separate thread.

    It calls ``publish`` with a report after each GPU, so that a GPU that hangs does not delay the
    others' samples. ``whole`` False reads only this process's share of each GPU. ``slow_every``
    is the time in seconds between two readings of the slow fields, 0 for never. ``clock`` is Unix
    time, ``timer`` is monotonic.
    """

    def __init__(
        self,
        driver: Driver,
        publish: Callable[[GpuReport], None],
        *,
        whole: bool = True,
        slow_every: float = 0.0,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._publish = publish
        self._whole = whole
        self._slow_every = slow_every
        self._clock = clock
        self._timer = timer
        self._fields = (*(WHOLE_FIELDS if whole else ()), *OWN_FIELDS)
        self._open = False
        self._done = False
        self._kinds = Kinds()
        self._next_open = self._next_list = self._next_slow = float("-inf")
        self._present: bool | None = None
        self._versions = Versions()
        self._gpus: dict[str, Gpu] = {}
        self._samples: dict[str, GpuSample] = {}
        self._slow: dict[str, dict[Cell, float]] = {}
        self._lost: set[str] = set()
        self._lasting: set[tuple[str, str]] = set()
        self._counted: set[tuple[str, str, str]] = set()
        self._errors: dict[tuple[str, str], int] = {}
        self._cuda: tuple[CudaDevice, ...] = ()

    @property
    def done(self) -> bool:
        """Whether sampling is over for good: the machine has no driver."""
        return self._done

    def step(self) -> None:
        """Sample once. Never raises."""
        try:
            self._pass()
        except DriverGone as gone:
            self._driver_gone(gone.error)
        except Exception as error:
            self._log_once(f"GPUs cannot be read: {type(error).__name__}: {error}")
            self._driver_gone("unexpected")
        self._report()

    def close(self) -> None:
        """Close the driver. Never raises."""
        self._open = False
        try:
            self._driver.close()
        except Exception as error:
            logger.debug("closing the GPU driver: %s", error)

    def _pass(self) -> None:
        now = self._timer()
        if not self._open:
            if now < self._next_open or self._done:
                return
            try:
                self._driver.open()
            except NoDriver as reason:
                self._present = False
                self._done = reason.for_good
                self._next_open = now + RETRY_SECONDS
                self._log_once(f"no GPU vitals: {reason}")
                return
            self._open = True
            self._next_list = now
        if now >= self._next_list:
            self._list()
            # Without a GPU, or while one is lost, the list may change.
            complete = self._gpus and not self._lost
            self._next_list = float("inf") if complete else now + RETRY_SECONDS
        slow = self._slow_every > 0 and now >= self._next_slow
        if slow:
            self._next_slow = now + self._slow_every
        for uuid, gpu in self._gpus.items():
            if uuid not in self._lost:
                self._sample(uuid, gpu, slow)
                self._report()
        if self._lost and self._next_list == float("inf"):
            self._next_list = now + RETRY_SECONDS
        self._cuda = tuple(self._driver.cuda_devices())

    def _list(self) -> None:
        """List the GPUs. A lost GPU stays on record, and returns once it is listed again."""
        try:
            found, errors = self._driver.gpus()
        except DriverGone:
            raise
        except ReadError as failed:
            self._count("", "list", failed.error)
            return
        for error in errors:
            self._count("", "list", error)
        self._versions = self._driver.versions()
        self._gpus = {gpu.identity.uuid: gpu for gpu in found}
        # A GPU off the bus still counts; one that the container may not use does not.
        self._present = bool(found) or "gpu_is_lost" in errors
        self._lost.clear()
        self._lasting.clear()
        for uuid in self._samples.keys() - self._gpus.keys():
            self._lose(uuid)
        for uuid, gpu in self._gpus.items():
            before = self._samples.get(uuid)
            if before is None or before.identity != gpu.identity:
                answered = None if before is None else before.answered_at
                self._samples[uuid] = GpuSample(gpu.identity, answered_at=answered)
        if not self._present:
            why = f" that answers ({', '.join(sorted(set(errors)))})" if errors else ""
            self._log_once(f"no GPU vitals: the driver lists no GPU{why}")

    def _sample(self, uuid: str, gpu: Gpu, slow: bool) -> None:
        cells: dict[Cell, float] = {}
        try:
            for field in self._fields:
                cells.update(self._read(uuid, gpu, field))
            if slow:
                self._slow[uuid] = {}
                for field in SLOW_FIELDS:
                    self._slow[uuid].update(self._read(uuid, gpu, field))
            instances = self._instances(uuid, gpu) if self._whole else ()
        except GpuLost as lost:
            self._count(uuid, "gpu", lost.error)
            self._lose(uuid)
            return
        before = self._samples[uuid]
        answered = self._clock() if cells or instances else before.answered_at
        cells.update(self._slow.get(uuid, {}))
        self._samples[uuid] = GpuSample(before.identity, cells, instances, answered)

    def _lose(self, uuid: str) -> None:
        before = self._samples[uuid]
        self._samples[uuid] = GpuSample(before.identity, answered_at=before.answered_at)
        self._slow.pop(uuid, None)
        self._lost.add(uuid)

    def _read(self, uuid: str, gpu: Gpu, field: str) -> dict[Cell, float]:
        """A field's values, as far as they could be read."""
        if (uuid, field) in self._lasting:
            return {}
        try:
            return dict(gpu.read(field))
        except (GpuLost, DriverGone):
            raise
        except ReadError as failed:
            if failed.error in LASTING and not failed.cells:
                self._lasting.add((uuid, field))
            self._count(uuid, field, failed.error)
            return dict(failed.cells)
        except Exception:
            self._count(uuid, field, "unexpected")
            return {}

    def _instances(self, uuid: str, gpu: Gpu) -> tuple[MigInstance, ...]:
        if (uuid, "mig") in self._lasting:
            return ()
        try:
            return tuple(gpu.instances())
        except (GpuLost, DriverGone):
            raise
        except ReadError as failed:
            if failed.error in LASTING:
                self._lasting.add((uuid, "mig"))
            self._count(uuid, "mig", failed.error)
        except Exception:
            self._count(uuid, "mig", "unexpected")
        return ()

    def _driver_gone(self, error: str) -> None:
        self._count("", "driver", error)
        self.close()
        self._next_open = self._timer() + RETRY_SECONDS
        self._present = False
        self._gpus.clear()
        self._lost.clear()
        for uuid in self._samples:
            self._lose(uuid)
        self._cuda = ()

    def _count(self, uuid: str, field: str, error: str) -> None:
        if error in LASTING:
            if (uuid, field, error) in self._counted:
                return
            self._counted.add((uuid, field, error))
        self._errors[field, error] = self._errors.get((field, error), 0) + 1

    def _log_once(self, text: str) -> None:
        if self._kinds.first(text):
            logger.info("%s", text)

    def _report(self) -> None:
        self._publish(
            GpuReport(
                self._driver.source,
                self._whole,
                self._present if self._whole else None,
                self._versions,
                tuple(self._samples.values()),
                dict(self._errors),
                self._cuda,
            )
        )
