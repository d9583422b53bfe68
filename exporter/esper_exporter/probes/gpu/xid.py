"""Count the errors that the driver reports by code (XID) as they arrive, so that none is missed
between two samples and repeats count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from esper_exporter.probes.gpu.driver import Driver, NoDriver, ReadError, XidWatch
from esper_exporter.probes.gpu.gpu_report import XidReport

logger = logging.getLogger("esper_exporter")

HARDWARE_XIDS = (48, 61, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120)
"""Codes that mean a fault of the machine rather than of the program: memory (48, 63, 64, 92, 94,
95), NVLink (74), off the bus (79), the GPU's own controllers (61, 62, 119, 120). NVIDIA's catalogue
of XID errors."""

MOST_CODES = 64
"""Distinct codes per GPU; further ones count as ``other``."""

WAIT_SECONDS = 5.0
RETRY_SECONDS = 30.0


class XidWatcher:
    """Owns the counts. `step` waits for one error and counts it, on a separate thread, and returns
    the seconds to wait before the next call.

    It calls ``publish`` with a report on every change. ``clock`` is Unix time.
    """

    def __init__(
        self,
        driver: Driver,
        publish: Callable[[XidReport], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver = driver
        self._publish = publish
        self._clock = clock
        self._watch: XidWatch | None = None
        self._indexes: dict[str, str] = {}
        self._done = False
        self._counts: dict[tuple[str, str, str], int] = {}
        self._last: dict[tuple[str, str, str], float] = {}
        self._counted: set[tuple[str, str]] = set()
        self._errors: dict[tuple[str, str], int] = {}

    @property
    def done(self) -> bool:
        """Whether watching is over for good: the machine has no driver."""
        return self._done

    def step(self) -> float:
        """Wait for one error, for a few seconds at most unless the driver hangs. Never raises."""
        try:
            watch = self._watch or self._begin()
            event = watch.wait(WAIT_SECONDS)
            if event is not None:
                self._count(*event)
            return 0.0
        except NoDriver as reason:
            self._done = reason.for_good
        except ReadError as failed:
            self._error("", failed.error)
        except Exception as error:
            logger.debug("watching for XIDs: %s", error)
            self._error("", "unexpected")
        self.close()
        return RETRY_SECONDS

    def close(self) -> None:
        """Close the driver. Never raises."""
        watch, self._watch = self._watch, None
        for close in (*(() if watch is None else (watch.close,)), self._driver.close):
            try:
                close()
            except Exception as error:
                logger.debug("closing the watch for XIDs: %s", error)

    def _begin(self) -> XidWatch:
        self._driver.open()
        watch = self._watch = self._driver.watch()
        self._indexes |= {identity.uuid: identity.gpu for identity in watch.watched}
        for identity in watch.watched:
            for code in HARDWARE_XIDS:
                self._counts.setdefault((identity.gpu, identity.uuid, str(code)), 0)
        for uuid, error in watch.refused.items():
            self._error(uuid, error)
        self._report()
        if not watch.watched:
            raise NoDriver("no GPU reports its errors", for_good=False)
        return watch

    def _count(self, uuid: str, code: int) -> None:
        gpu = self._indexes.get(uuid, "")
        key = (gpu, uuid, str(code))
        if key not in self._counts:
            codes = sum(1 for of_gpu, of_uuid, _ in self._counts if (of_gpu, of_uuid) == key[:2])
            if codes >= MOST_CODES:
                key = (gpu, uuid, "other")
        self._counts[key] = self._counts.get(key, 0) + 1
        self._last[key] = self._clock()
        self._report()

    def _error(self, uuid: str, error: str) -> None:
        """Count an error of the watch itself, once per GPU: the watch retries indefinitely."""
        if (uuid, error) not in self._counted:
            self._counted.add((uuid, error))
            self._errors["xid", error] = self._errors.get(("xid", error), 0) + 1
            self._report()

    def _report(self) -> None:
        self._publish(XidReport(dict(self._counts), dict(self._last), dict(self._errors)))
