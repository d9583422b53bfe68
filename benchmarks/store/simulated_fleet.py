"""A simulated fleet that a test can hurt: the pages of many runs, from one process, by the clock.

Every scraper that asks at one time gets the same values, as of a real exporter. The pages are those
of a recorded training at many moments; each run is at another one, and stays at the last. A few
runs show all series, the others without environments, slots, layers and buckets (what
deploy/prometheus/remote-write.yml sends on, and less), or, light ones, what the rules use, so that
hundreds fit on a small machine.
"""

from __future__ import annotations

import gzip
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from benchmarks.fleet import RUN_ID, pages, slim

MOMENT_SECONDS = 30.0
BEGIN_SECONDS = 40.0
"""So long all counters of the first runs are 0: they begin while they are scraped."""
WHOLE_RUNS = 3
"""Runs that show all their series."""
LEFT_OUT = re.compile(
    r"env_id=|layer=|_bucket\{|choice=|stage=|blueprint=|type=|operation=|gate=|phase=|place=|"
    r'head="(?!op|slot")|where=|verdict=|^python_|^process_'
)
STARTED = re.compile(r"^(esper_(?:run|exporter)_start_timestamp_seconds\S*) .*$", re.M)
COUNTER = re.compile(r"^(\w+_(?:total|count|sum|bucket)(?:\{.*\})?) .*$", re.M)
LATELY = re.compile(
    r"^(esper_(?:\w+_last_(?:event|update)|exporter_clock)_timestamp_seconds\S*) .*$", re.M
)
"""What is about now on the page of a run that goes on."""


def _reduced(page: str) -> str:
    lines = page.splitlines()
    kept = [line for line in lines if line and line[0] != "#" and not LEFT_OUT.search(line)]
    return "\n".join(kept) + "\n"


def _set(page: str, line_start: str, value: str) -> str:
    """The page with another value in the lines that begin so. Raises ValueError without any."""
    changed, count = re.subn(rf"^({line_start}\S*) .*$", rf"\1 {value}", page, flags=re.M)
    if not count:
        raise ValueError(f"no line begins with {line_start}")
    return changed


class Fleet:
    """Pages by cluster and run; ``fault`` changes those of a run from now on."""

    FAULTS: ClassVar[dict[str, tuple[tuple[str, str], ...]]] = {
        "latch": ((r'esper_tamiyo_head_nonfinite_latched\{.*head="op",kind="nan"\}', "1"),),
        "source": ((r'esper_tamiyo_nonfinite_latched\{.*source="policy_loss"\}', "1"),),
        "failed": (
            (r'esper_run_failed\{.*reason="exception"\}', "1"),
            (r"esper_run_active\{.*\}", "0"),
        ),
        "finished": ((r"esper_run_finished\{.*\}", "1"), (r"esper_run_active\{.*\}", "0")),
        "kl": ((r"esper_tamiyo_kl_divergence_nats\{.*\}", "5"),),
        "skips": ((r'esper_tamiyo_updates_skipped_total\{.*reason="nonfinite"\}', "3"),),
    }
    """Values that a fault changes, by the start of their line."""

    def __init__(self, light: bool = False, moment_seconds: float = MOMENT_SECONDS) -> None:
        """``light``: the others than the first few show only families that the rules use, 100
        series each, so that two replicas of 200 runs are little work. ``moment_seconds`` is how
        long a page stays the same."""
        whole = [page.decode() for page in pages()]
        self._whole = whole
        self._reduced = [_reduced(page) for page in whole]
        if light:
            self._reduced = [slim(page.encode()).decode() for page in self._reduced]
        self._moment_seconds = moment_seconds
        self._faults: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        self.name = "run"
        """What the runs' names begin with."""
        self.began = time.time()
        self._moves_at = self.began + BEGIN_SECONDS
        self.served: dict[tuple[str, int], int] = {}
        """Pages served, by cluster and run."""

    def fault(self, cluster: str, run: int, kind: str) -> None:
        """Change a run's pages from now on; "gone" refuses them, "" heals it."""
        self._faults[cluster, run] = kind

    def begin_again(self, name: str) -> None:
        """Other runs follow, whose counters stay at 0 until `go`: two servers that saw a counter
        first at different values differ about its increase."""
        self._moves_at = math.inf
        self.began = time.time()
        self.name = name

    def go(self, seconds: float) -> None:
        """The runs train from so many seconds from now on."""
        self._moves_at = time.time() + seconds

    def page(self, cluster: str, run: int) -> bytes | None:
        """A run's page now, None when it is gone."""
        kind = self._faults.get((cluster, run), "")
        if kind == "gone":
            return None
        now = time.time()
        age = now - self._moves_at
        moment = run * 7 % 30 + int(max(age, 0) / self._moment_seconds)
        source = self._whole if run < WHOLE_RUNS else self._reduced
        page = source[min(moment, len(source) - 1)]
        page = page.replace(f'run_id="{RUN_ID}"', f'run_id="{self.name}-{run}"')
        if age < 0:
            page = COUNTER.sub(r"\1 0", page)
        page = STARTED.sub(rf"\1 {self.began - 5:.0f}", page)
        page = LATELY.sub(rf"\1 {int(now)}", page)
        for line_start, value in self.FAULTS.get(kind, ()):
            page = _set(page, line_start, value)
        return page.encode()

    def count(self, cluster: str, run: int) -> None:
        """Count a page that was served."""
        with self._lock:
            self.served[cluster, run] = self.served.get((cluster, run), 0) + 1


@contextmanager
def serving(fleet: Fleet) -> Iterator[int]:
    """Serve /CLUSTER/RUN/metrics on a free port of the loopback; the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _, cluster, run, _ = self.path.split("/")
            page = fleet.page(cluster, int(run))
            if page is None:
                self.close_connection = True
                self.connection.close()
                return
            body = gzip.compress(page, 1)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            fleet.count(cluster, int(run))

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, *_: object) -> None:
            """A scraper hangs up when it is ended."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
