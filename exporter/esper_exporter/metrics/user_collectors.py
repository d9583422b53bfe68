"""Collectors that users add: each isolated, so that a failing one costs only itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import Metric as ClientMetric
from prometheus_client import exposition as text_exposition
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector

from esper_exporter.daemon_thread import start_daemon
from esper_exporter.log_once import Kinds
from esper_exporter.metrics.exposition import OPENMETRICS
from esper_exporter.metrics.metric import Metric

logger = logging.getLogger("esper_exporter")

END = b"# EOF\n"


class _Thread(threading.local):
    """Whether a thread is one that a collector runs on."""

    collecting = False


_thread = _Thread()


class CollectorFailed(Exception):
    """Why a collector's families, or some of them, are not on the page."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one collector did: its name, whether all of its families are there, and its seconds."""

    name: str
    success: bool
    seconds: float


@dataclass(slots=True)
class _Call:
    """One call of a collector, on a thread that may never come back."""

    done: threading.Event = field(default_factory=threading.Event)
    families: list[ClientMetric] = field(default_factory=list)
    error: BaseException | None = None
    seconds: float = 0.0


class _Guarded:
    """A collector with its name, its limit, and the call that it has not come back from."""

    def __init__(self, name: str, collector: Collector, seconds: float) -> None:
        self.name = name
        self._collector = collector
        self._seconds = seconds
        self._call: _Call | None = None

    def begin(self) -> float:
        """Call it, unless it still hangs; how long to wait for it at most."""
        if self._call is None:
            self._call = _Call()
            start_daemon(
                partial(self._collect, self._call), f"esper-exporter-collector-{self.name}"
            )
            return self._seconds
        return 0.0

    def _collect(self, call: _Call) -> None:
        begun = time.perf_counter()
        _thread.collecting = True
        try:
            call.families = list(self._collector.collect())
        except BaseException as error:
            call.error = error
        call.seconds = time.perf_counter() - begun
        call.done.set()

    def finish(self, deadline: float) -> tuple[list[ClientMetric], float]:
        """Its families and its seconds. Raises CollectorFailed, or what it raised itself."""
        call = self._call
        assert call is not None
        if not call.done.wait(max(0.0, deadline - time.perf_counter())):
            raise CollectorFailed(f"has not come back within {self._seconds:g} s")
        self._call = None
        if isinstance(call.error, Exception):
            raise call.error
        if call.error is not None:
            raise CollectorFailed(f"raised {type(call.error).__name__}")
        return call.families, call.seconds


class _Given:
    """Families in the form in which prometheus_client's renderers take a registry."""

    def __init__(self, families: Sequence[ClientMetric]) -> None:
        self._families = families

    def collect(self) -> Iterable[ClientMetric]:
        return self._families


class UserCollectors:
    """All collectors that were added. ``own`` are the metrics that the page has already,
    ``own_name`` is the name under which these are reported beside the collectors.

    Where ``own_process`` says so, the page has prometheus_client's metrics of a process, as its
    default registry has: that is left out there without a word, since it would say the same twice.

    Used by one renderer at a time.
    """

    def __init__(
        self, own: Iterable[Metric], own_name: str, own_process: Callable[[], bool]
    ) -> None:
        self._own_name = own_name
        self._own: set[str] = set()
        self._same: set[str] = set()
        self._own_process = own_process
        for metric in own:
            names = self._own if metric.name.startswith("esper_") else self._same
            names.update((metric.name, metric.family))
        self._guarded: list[_Guarded] = []
        self._problems = Kinds()

    def on_their_thread(self) -> bool:
        """Whether it is a collector that asks: waiting for it here would be waiting for itself."""
        return _thread.collecting

    def add(self, collector: Collector, name: str, seconds: float) -> None:
        """Add one. Raises ValueError for a name that is taken or a limit that is none."""
        if not name or name in {self._own_name, *(each.name for each in self._guarded)}:
            raise ValueError(f"a collector needs a unique name, not {name!r}")
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds must be above 0, not {seconds}")
        if not callable(getattr(collector, "collect", None)):
            raise ValueError(f"{collector!r} is no collector: it has no collect()")
        self._guarded.append(_Guarded(name, collector, seconds))

    def render(self, form: str) -> tuple[bytes, list[Result]]:
        """The families of all of them in one format, without its end, and how each did."""
        begun = time.perf_counter()
        deadlines = [begun + each.begin() for each in self._guarded]
        taken = set(self._own)
        same = self._same if self._own_process() else set()
        pages, results = [], []
        for each, deadline in zip(self._guarded, deadlines, strict=True):
            seconds = time.perf_counter() - begun
            success = False
            try:
                families, seconds = each.finish(deadline)
                families = [family for family in families if family.name not in same]
                free = [family for family in families if family.name not in taken]
                pages.append(_rendered(free, form))
                taken.update(family.name for family in free)
                if len(free) < len(families):
                    names = sorted({f.name for f in families} & taken - {f.name for f in free})
                    raise CollectorFailed(f"names on the page already: {', '.join(names)[:200]}")
                success = True
            except Exception as problem:
                self._log(each.name, problem)
            results.append(Result(each.name, success, seconds))
        return b"".join(pages), results

    def _log(self, name: str, problem: Exception) -> None:
        if not self._problems.first((name, type(problem).__name__)):
            return
        known = isinstance(problem, CollectorFailed)
        logger.warning(
            "collector %s: %s; logged once per kind",
            name,
            problem if known else "failed",
            exc_info=None if known else problem,
        )


def _rendered(families: Sequence[ClientMetric], form: str) -> bytes:
    given = _Given(families)
    if form == OPENMETRICS:
        page: bytes = openmetrics_exposition.generate_latest(given)  # type: ignore[no-untyped-call]
        return page.removesuffix(END)
    return text_exposition.generate_latest(given)
